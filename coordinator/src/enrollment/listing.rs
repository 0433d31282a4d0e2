//! Devices and tokens as an operator asks for them.

use std::sync::Arc;

use proto::admin::{Attested, DeviceQuery, DeviceStatus, TokenStatus};
use proto::ids::{DeviceId, Timestamp, TokenId};
use proto::message::Rejection;

use super::{Registry, unavailable};
use crate::records;
use crate::tokens::{self, TokenError, TokenRefusal};

/// Devices in one answer: what is asked for beyond is in the next one.
const MOST_IN_ONE_ANSWER: usize = 10_000;

impl Registry {
    /// The devices that a query wants, and whether there are more of them behind the last. How often they took part is left for
    /// whoever knows it to say.
    pub async fn listed(
        self: Arc<Self>,
        query: DeviceQuery,
        now: Timestamp,
    ) -> Result<(Vec<DeviceStatus>, bool), Rejection> {
        self.apart(move |registry| registry.listed_here(&query, now)).await
    }

    fn listed_here(
        &self,
        query: &DeviceQuery,
        now: Timestamp,
    ) -> Result<(Vec<DeviceStatus>, bool), Rejection> {
        let limit = usize::try_from(query.limit).unwrap_or(usize::MAX);
        let limit = if limit == 0 { MOST_IN_ONE_ANSWER } else { limit.min(MOST_IN_ONE_ANSWER) };
        let mut found = Vec::new();
        for device in
            records::devices_behind(&self.store, query.after).map_err(|error| unavailable(&error))?
        {
            let device = self.with_call(device.map_err(|error| unavailable(&error))?);
            if !query.wants(&device, now.as_secs()) {
                continue;
            }
            if found.len() == limit {
                return Ok((found, true));
            }
            found.push(device);
        }
        Ok((found, false))
    }

    /// One device.
    pub async fn one(self: Arc<Self>, device: DeviceId) -> Result<DeviceStatus, Rejection> {
        self.apart(move |registry| {
            let record = records::device(&registry.store, device).map_err(|e| registry.store(e))?;
            let record = record.ok_or_else(|| Rejection::Unacceptable {
                request: "show device".into(),
                why: "no device has this id; `nightshift device ls` lists them".into(),
            })?;
            Ok(registry.with_call(record.status(device)))
        })
        .await
    }

    /// By what a device was admitted when it enrolled; none where nothing was asked.
    pub async fn attested_by(self: Arc<Self>, device: DeviceId) -> Result<Option<Attested>, Rejection> {
        self.apart(move |registry| {
            let record = records::device(&registry.store, device).map_err(|e| registry.store(e))?;
            let current = match registry.enroller.apart() {
                Some(authority) => authority.touch.attestation_policy(),
                None => registry.hooks.attestation.policy().map(|policy| policy.digest),
            };
            Ok(record.and_then(|record| record.attested).map(|attested| Attested {
                kind: attested.kind,
                policy: attested.policy,
                at_unix_secs: attested.at_unix_secs,
                is_current: current == Some(attested.policy),
            }))
        })
        .await
    }

    /// All bootstrap tokens, the newest first.
    pub async fn tokens(self: Arc<Self>) -> Result<Vec<TokenStatus>, Rejection> {
        self.tokens_are_here("list tokens")?;
        self.apart(|registry| {
            let mut tokens = tokens::list(&registry.store).map_err(|e| registry.store(e))?;
            tokens.sort_by_key(|token| std::cmp::Reverse((token.issued_unix_secs, token.token)));
            Ok(tokens)
        })
        .await
    }

    /// Makes a bootstrap token worthless that nobody has used; durable when this returns.
    pub async fn revoke_token(self: Arc<Self>, token: TokenId, now: Timestamp) -> Result<(), Rejection> {
        self.tokens_are_here("revoke token")?;
        self.apart(move |registry| {
            let revoked = tokens::revoke(&registry.store, token, now.as_secs());
            revoked.map_err(|error| match error {
                TokenError::Refused(TokenRefusal::Unknown) => Rejection::Unacceptable {
                    request: "revoke token".into(),
                    why: "no bootstrap token has this id; `nightshift token ls` lists them".into(),
                },
                TokenError::Refused(TokenRefusal::Redeemed) => Rejection::Unacceptable {
                    request: "revoke token".into(),
                    why: "a device has enrolled with it already; `nightshift device revoke` shuts that out"
                        .into(),
                },
                other @ (TokenError::Store(_)
                | TokenError::Randomness
                | TokenError::Refused(TokenRefusal::Revoked | TokenRefusal::Expired { .. })
                | TokenError::Ambiguous
                | TokenError::Label { .. }
                | TokenError::Lifetime(_)) => registry.token(other),
            })?;
            tracing::info!(%token, "bootstrap token revoked");
            Ok(())
        })
        .await
    }

    /// Fails where tokens are an authority's apart.
    pub(super) fn tokens_are_here(&self, request: &'static str) -> Result<(), Rejection> {
        if self.enroller.apart().is_none() {
            return Ok(());
        }
        let why = "bootstrap tokens are the enrollment authority's: on its machine, `nightshift-authority token --label …` \
                   makes one, and `nightshift-authority token ls` lists them";
        Err(Rejection::Unacceptable { request: request.into(), why: why.into() })
    }

    fn with_call(&self, device: DeviceStatus) -> DeviceStatus {
        let seen = self.seen.of(device.device);
        DeviceStatus { last_seen_unix_secs: seen.at_unix_secs, client: seen.client, ..device }
    }
}

#[cfg(test)]
mod tests {
    use aggregation::IdentityPublic;
    use proto::admin::DeviceState;
    use shell::store::Batch;

    use super::super::test_registry;
    use super::*;
    use crate::records::DeviceRecord;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn enroll(registry: &Registry, id: u8, label: &str, expires_unix_secs: u64) {
        let record = DeviceRecord::new(label.into(), IdentityPublic([id; 32]), NOW.0, expires_unix_secs);
        let mut batch = Batch::new();
        records::insert_device(&mut batch, DeviceId([id; 16]), &record).unwrap();
        registry.store.commit_blocking(&batch).unwrap();
        registry.driver.known().enrolled(DeviceId([id; 16]));
    }

    fn ids(found: &(Vec<DeviceStatus>, bool)) -> Vec<u8> {
        found.0.iter().map(|device| device.device.0[0]).collect()
    }

    #[tokio::test]
    async fn pages_follow_one_another_and_filters_leave_nobody_out_that_they_want() {
        let folder = tempfile::tempdir().unwrap();
        let registry = Arc::new(test_registry(folder.path()));
        let now = NOW.as_secs();
        for (id, label) in [(1, "attic"), (2, "kitchen"), (3, "kitchen"), (4, "hall"), (5, "kitchen")] {
            enroll(&registry, id, label, if id == 3 { now - 1 } else { now + 9 });
        }
        records::revoke(&registry.store, DeviceId([4; 16]), Batch::new()).unwrap();
        registry.seen.saw(DeviceId([2; 16]), "nightshift/1", now - 50);
        registry.seen.saw(DeviceId([5; 16]), "nightshift/1", now - 5);
        let listed = |query: DeviceQuery| registry.listed_here(&query, NOW).unwrap();

        let first = listed(DeviceQuery { limit: 2, ..DeviceQuery::default() });
        assert_eq!((ids(&first), first.1), (vec![1, 2], true));
        let after = Some(first.0[1].device);
        let second = listed(DeviceQuery { after, limit: 3, ..DeviceQuery::default() });
        assert_eq!((ids(&second), second.1), (vec![3, 4, 5], false));
        assert_eq!(ids(&listed(DeviceQuery::default())), [1, 2, 3, 4, 5]);

        // A page that is full by those who are wanted, whoever lies between.
        let kitchens = listed(DeviceQuery { label: "kitchen".into(), limit: 2, ..DeviceQuery::default() });
        assert_eq!((ids(&kitchens), kitchens.1), (vec![2, 3], true));
        for (state, wanted) in [
            (DeviceState::Enrolled, vec![1, 2, 5]),
            (DeviceState::Expired, vec![3]),
            (DeviceState::Revoked, vec![4]),
        ] {
            assert_eq!(ids(&listed(DeviceQuery { state: Some(state), ..DeviceQuery::default() })), wanted);
        }
        let since = Some(now - 10);
        let quiet = listed(DeviceQuery { not_seen_since_unix_secs: since, ..DeviceQuery::default() });
        assert_eq!(ids(&quiet), [1, 2, 3, 4]);
        assert_eq!(quiet.0[1].last_seen_unix_secs, now - 50);

        assert_eq!(Arc::clone(&registry).one(DeviceId([5; 16])).await.unwrap().client, "nightshift/1");
        assert!(Arc::clone(&registry).one(DeviceId([9; 16])).await.is_err());
    }
}
