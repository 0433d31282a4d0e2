//! Bootstrap tokens: with one, a device that has no certificate yet may enroll,
//! once. The store keeps a hash of the secret only.

use proto::admin::TokenStatus;
use proto::ids::TokenId;
use proto::token::{BootstrapToken, TokenText};
use ring::{
    digest::{Context, SHA256},
    rand::SecureRandom,
};
use serde::{Deserialize, Serialize};
use shell::store::{Batch, Key, Store, StoreError};
use zeroize::Zeroizing;

/// The tree in which tokens are kept, by the hash of their secret.
pub(crate) const TREE: &str = "tokens";

const LABEL_LIMIT_BYTES: usize = 128;

/// What is kept of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Whom the operator gave it to.
    pub label: String,
    /// When it was made.
    pub issued_unix_secs: u64,
    /// From when on it is worth nothing.
    pub expires_unix_secs: u64,
    /// When it was used; `None` while it may be.
    pub redeemed_unix_secs: Option<u64>,
    /// When an operator made it worthless; not written where none did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_unix_secs: Option<u64>,
}

/// What a new token is made of.
#[derive(Clone, Debug)]
pub struct NewToken<'a> {
    /// Whom it is for: 1 to 128 bytes.
    pub label: &'a str,
    /// Where the coordinator listens, `host:port`.
    pub address: &'a str,
    /// The authority's certificate, DER.
    pub authority: &'a [u8],
    /// From when on it is worth nothing.
    pub expires_unix_secs: u64,
}

/// Why a token could not be made or redeemed.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// There is no such token.
    #[error("unknown bootstrap token")]
    Unknown,
    /// The token's time is over.
    #[error("the bootstrap token expired at {expires_unix_secs}")]
    Expired {
        /// Its last second.
        expires_unix_secs: u64,
    },
    /// The token was used before.
    #[error("the bootstrap token was used before")]
    Redeemed,
    /// An operator made the token worthless.
    #[error("the bootstrap token was revoked; ask the operator for another one")]
    Revoked,
    /// More than one token is called so.
    #[error("more than one bootstrap token has this id")]
    Ambiguous,
    /// A label that says nothing, or is too long.
    #[error("a label is 1 to {limit_bytes} bytes, and not of spaces alone; got {bytes}")]
    Label {
        /// What came.
        bytes: usize,
        /// What is taken.
        limit_bytes: usize,
    },
    /// The system has no randomness.
    #[error("the system gave no randomness")]
    Randomness,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Makes a token and keeps it; durable when this returns.
pub async fn issue(
    store: &Store,
    new: NewToken<'_>,
    now_unix_secs: u64,
    rng: &(dyn SecureRandom + Sync),
) -> Result<TokenText, TokenError> {
    if new.label.trim().is_empty() || new.label.len() > LABEL_LIMIT_BYTES {
        return Err(TokenError::Label { bytes: new.label.len(), limit_bytes: LABEL_LIMIT_BYTES });
    }
    let mut secret = Zeroizing::new([0; 32]);
    rng.fill(secret.as_mut()).map_err(|_| TokenError::Randomness)?;
    let token = Token {
        label: new.label.to_owned(),
        issued_unix_secs: now_unix_secs,
        expires_unix_secs: new.expires_unix_secs,
        redeemed_unix_secs: None,
        revoked_unix_secs: None,
    };
    let mut batch = Batch::new();
    batch.insert(TREE, key(secret.as_slice()), &token)?;
    store.commit(batch).await?;
    Ok(BootstrapToken::new(new.address, new.authority, secret).to_text())
}

/// What is kept of the token with this secret. Fails when it is worth nothing now. Blocks.
pub fn find(store: &Store, secret: &[u8], now_unix_secs: u64) -> Result<Token, TokenError> {
    let token: Token = store.get(TREE, key(secret))?.ok_or(TokenError::Unknown)?;
    if token.redeemed_unix_secs.is_some() {
        return Err(TokenError::Redeemed);
    }
    if token.revoked_unix_secs.is_some() {
        return Err(TokenError::Revoked);
    }
    if now_unix_secs >= token.expires_unix_secs {
        return Err(TokenError::Expired { expires_unix_secs: token.expires_unix_secs });
    }
    Ok(token)
}

/// Uses a token up, together with what its use brings about (`also`), in one
/// transaction; durable when this returns. Of any number of attempts with one
/// token exactly one succeeds. Blocks.
///
/// A conflict over something in `also` comes back as the store's.
pub fn redeem(store: &Store, secret: &[u8], now_unix_secs: u64, also: Batch) -> Result<Token, TokenError> {
    let token = find(store, secret, now_unix_secs)?;
    let key = key(secret);
    let redeemed = Token { redeemed_unix_secs: Some(now_unix_secs), ..token.clone() };
    let mut batch = also;
    batch.replace(TREE, key, &token, &redeemed)?;
    match store.commit_blocking(&batch) {
        Ok(()) => Ok(redeemed),
        // It was used, or revoked, since it was read.
        Err(StoreError::Conflict { tree, .. }) if tree == TREE => {
            find(store, secret, now_unix_secs).and(Err(TokenError::Redeemed))
        }
        Err(error) => Err(error.into()),
    }
}

/// All tokens that were ever made, in no telling order.
pub fn list(store: &Store) -> Result<Vec<TokenStatus>, StoreError> {
    let mut tokens = Vec::new();
    for item in store.scan_prefix::<Token>(TREE, &Key::default())? {
        let (key, token) = item?;
        let Some(id) = key.as_bytes().first_chunk() else { continue };
        tokens.push(TokenStatus {
            token: TokenId(*id),
            label: token.label,
            issued_unix_secs: token.issued_unix_secs,
            expires_unix_secs: token.expires_unix_secs,
            redeemed_unix_secs: token.redeemed_unix_secs,
            revoked_unix_secs: token.revoked_unix_secs,
        });
    }
    Ok(tokens)
}

/// Makes a token worthless, for ever; durable when this returns. Fails where nobody made it, and where it was used: it is the
/// device that is revoked then. One that was revoked before stays so.
pub async fn revoke(store: &Store, id: TokenId, now_unix_secs: u64) -> Result<(), TokenError> {
    let found: Vec<(Key, Token)> =
        store.scan_prefix(TREE, &Key::from(id.0))?.collect::<Result<_, StoreError>>()?;
    let mut found = found.into_iter();
    let (key, token) = match (found.next(), found.next()) {
        (None, _) => return Err(TokenError::Unknown),
        (Some(one), None) => one,
        (Some(_), Some(_)) => return Err(TokenError::Ambiguous),
    };
    if token.redeemed_unix_secs.is_some() {
        return Err(TokenError::Redeemed);
    }
    if token.revoked_unix_secs.is_some() {
        return Ok(());
    }
    let revoked = Token { revoked_unix_secs: Some(now_unix_secs), ..token.clone() };
    let mut batch = Batch::new();
    batch.replace(TREE, key, &token, &revoked)?;
    match store.commit(batch).await {
        Ok(()) => Ok(()),
        // A device was quicker.
        Err(StoreError::Conflict { .. }) => Err(TokenError::Redeemed),
        Err(error) => Err(error.into()),
    }
}

/// How the token with this secret is called; it says nothing of the secret.
pub fn id_of(secret: &[u8]) -> TokenId {
    let mut id = [0; 8];
    for (to, from) in id.iter_mut().zip(key(secret).as_bytes()) {
        *to = *from;
    }
    TokenId(id)
}

fn key(secret: &[u8]) -> Key {
    let mut context = Context::new(&SHA256);
    context.update(b"nightshift bootstrap token v1");
    context.update(secret);
    Key::from(context.finish().as_ref())
}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;

    use super::*;

    const NOW: u64 = 1_800_000_000;

    #[tokio::test]
    async fn a_token_is_redeemed_once_and_stays_so_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let secret = issued(&store).await;
        let mut also = Batch::new();
        also.insert("devices", 1, &"phone").unwrap();
        let token = redeem(&store, &secret, NOW + 1, also).unwrap();
        assert_eq!(token.redeemed_unix_secs, Some(NOW + 1));
        drop(store);

        let store = Store::open(folder.path()).unwrap();
        assert_eq!(store.get::<String>("devices", 1).unwrap().as_deref(), Some("phone"));
        let error = redeem(&store, &secret, NOW + 2, Batch::new());
        assert!(matches!(error, Err(TokenError::Redeemed)));
    }

    #[tokio::test]
    async fn a_label_says_something_and_is_not_long() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        for (label, taken) in
            [("", false), ("  ", false), ("a", true), (&"a".repeat(128), true), (&"a".repeat(129), false)]
        {
            let new = NewToken {
                label,
                address: "localhost:1",
                authority: b"certificate",
                expires_unix_secs: NOW + 60,
            };
            assert_eq!(issue(&store, new, NOW, &SystemRandom::new()).await.is_ok(), taken, "{label:?}");
        }
    }

    #[tokio::test]
    async fn of_many_that_redeem_at_once_one_succeeds() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let secret = issued(&store).await;
        let attempt = || redeem(&store, &secret, NOW, Batch::new()).is_ok();
        let wins: usize = std::thread::scope(|scope| {
            let attempts: Vec<_> = (0..3).map(|_| scope.spawn(attempt)).collect();
            attempts.into_iter().map(|attempt| usize::from(attempt.join().unwrap())).sum()
        });
        assert_eq!(wins, 1);
    }

    #[tokio::test]
    async fn a_token_is_worth_nothing_from_its_last_second_on() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let secret = issued(&store).await;
        let error = redeem(&store, &secret, NOW + 60, Batch::new());
        assert!(matches!(error, Err(TokenError::Expired { .. })));
        redeem(&store, &secret, NOW + 59, Batch::new()).unwrap();
    }

    #[tokio::test]
    async fn a_failed_enrollment_does_not_use_the_token_up() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let secret = issued(&store).await;
        let mut taken = Batch::new();
        taken.put("devices", 1, &"phone").unwrap();
        store.commit(taken).await.unwrap();
        let mut also = Batch::new();
        also.insert("devices", 1, &"tablet").unwrap();
        let error = redeem(&store, &secret, NOW, also);
        assert!(matches!(error, Err(TokenError::Store(StoreError::Conflict { .. }))));
        assert_eq!(list(&store).unwrap()[0].redeemed_unix_secs, None);
    }

    #[tokio::test]
    async fn a_revoked_token_enrolls_nobody_and_one_that_was_used_is_not_revoked() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let secret = issued(&store).await;
        let id = list(&store).unwrap()[0].token;
        assert!(matches!(revoke(&store, TokenId([0; 8]), NOW).await, Err(TokenError::Unknown)));
        revoke(&store, id, NOW + 1).await.unwrap();
        revoke(&store, id, NOW + 2).await.unwrap();
        assert_eq!(list(&store).unwrap()[0].revoked_unix_secs, Some(NOW + 1));
        let error = redeem(&store, &secret, NOW + 3, Batch::new());
        assert!(matches!(error, Err(TokenError::Revoked)));

        let secret = issued(&store).await;
        redeem(&store, &secret, NOW, Batch::new()).unwrap();
        let other = list(&store).unwrap().into_iter().find(|token| token.token != id).unwrap();
        assert!(matches!(revoke(&store, other.token, NOW).await, Err(TokenError::Redeemed)));
    }

    #[tokio::test]
    async fn an_unknown_secret_is_refused_and_no_secret_is_stored() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let secret = issued(&store).await;
        let error = redeem(&store, &[0; 32], NOW, Batch::new());
        assert!(matches!(error, Err(TokenError::Unknown)));
        assert!(store.get::<Token>(TREE, secret.as_slice()).unwrap().is_none());
        assert_eq!(list(&store).unwrap()[0].label, "kitchen tablet");
    }

    async fn issued(store: &Store) -> Vec<u8> {
        let new = NewToken {
            label: "kitchen tablet",
            address: "localhost:7443",
            authority: b"certificate",
            expires_unix_secs: NOW + 60,
        };
        let text = issue(store, new, NOW, &SystemRandom::new()).await.unwrap();
        let token: BootstrapToken = text.reveal().parse().unwrap();
        assert_eq!(token.address(), "localhost:7443");
        assert!(list(store).unwrap().iter().any(|one| one.token == id_of(token.secret().as_slice())));
        token.secret().to_vec()
    }
}
