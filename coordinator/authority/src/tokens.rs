//! Bootstrap tokens: with one, a device that has no certificate yet may enroll,
//! once. The store keeps the public half of a token's key by a hash; the secret is nowhere but in its text.

use aggregation::IdentityPublic;
use proto::admin::TokenStatus;
use proto::ids::TokenId;
use proto::token::{BootstrapToken, TokenText};
use ring::{
    digest::{Context, SHA256},
    rand::SecureRandom,
};
use shell::store::{Batch, Key, Store, StoreError};
use zeroize::Zeroizing;

pub use crate::decide::{Token, TokenRefusal, Use};

/// The tree in which tokens are kept, by the hash of the public half of their key.
pub const TREE: &str = "tokens";

const LABEL_LIMIT_BYTES: usize = 128;

/// The longest life of a token, in seconds: a year.
pub const MOST_TOKEN_SECS: u64 = 366 * 24 * 3600;

/// What a new token is made of.
#[derive(Clone, Copy, Debug)]
pub struct NewToken<'a> {
    /// Whom it is for: 1 to 128 bytes.
    pub label: &'a str,
    /// Where the coordinator listens, `host:port`.
    pub address: &'a str,
    /// SHA-256 of the certificate of the authority that vouches for the coordinator.
    pub pin: [u8; 32],
    /// The enrollment authority's key.
    pub authority: IdentityPublic,
    /// How long it can be used, in seconds.
    pub lifetime_secs: u64,
}

/// Why a token could not be made or redeemed.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The token is worth nothing.
    #[error(transparent)]
    Refused(#[from] TokenRefusal),
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
    /// A life that is too short or too long.
    #[error("a token lasts 1 to {MOST_TOKEN_SECS} seconds, got {0}")]
    Lifetime(u64),
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
    let (text, batch) = make(new, now_unix_secs, rng)?;
    store.commit(batch).await?;
    Ok(text)
}

/// The text of a new token, and what makes it one once it is committed.
pub fn make(
    new: NewToken<'_>,
    now_unix_secs: u64,
    rng: &dyn SecureRandom,
) -> Result<(TokenText, Batch), TokenError> {
    if new.label.trim().is_empty() || new.label.len() > LABEL_LIMIT_BYTES {
        return Err(TokenError::Label { bytes: new.label.len(), limit_bytes: LABEL_LIMIT_BYTES });
    }
    if !(1..=MOST_TOKEN_SECS).contains(&new.lifetime_secs) {
        return Err(TokenError::Lifetime(new.lifetime_secs));
    }
    let mut secret = Zeroizing::new([0; 32]);
    rng.fill(secret.as_mut()).map_err(|_| TokenError::Randomness)?;
    let text = BootstrapToken::new(new.address, new.pin, new.authority, secret);
    let token = Token::new(new.label, now_unix_secs, now_unix_secs.saturating_add(new.lifetime_secs));
    let mut batch = Batch::new();
    batch.insert(TREE, key(text.key().public()), &token)?;
    Ok((text.to_text(), batch))
}

/// What is kept of the token with this key, if there is one. Blocks.
pub fn get(store: &Store, token: IdentityPublic) -> Result<Option<Token>, StoreError> {
    store.get(TREE, key(token))
}

/// What is kept of the token with this key, and what it is worth now to whoever has this identity. Blocks.
pub fn find(
    store: &Store,
    token: IdentityPublic,
    identity: IdentityPublic,
    now_unix_secs: u64,
) -> Result<(Token, Use), TokenError> {
    let token = get(store, token)?.ok_or(TokenRefusal::Unknown)?;
    let used = token.worth(identity, now_unix_secs)?;
    Ok((token, used))
}

/// Has a batch use a token up, which must be as it was read.
pub fn use_up(
    batch: &mut Batch,
    token: IdentityPublic,
    read: &Token,
    (identity, now_unix_secs): (IdentityPublic, u64),
) -> Result<(), StoreError> {
    batch.replace(TREE, key(token), read, &read.redeemed(identity, now_unix_secs))?;
    Ok(())
}

/// Uses a token up, together with what its use brings about (`also`), in one
/// transaction; durable when this returns. Of any number of attempts with one
/// token, those of one identity key succeed. Blocks.
///
/// A conflict over something in `also` comes back as the store's.
pub fn redeem(
    store: &Store,
    token: IdentityPublic,
    (identity, now_unix_secs): (IdentityPublic, u64),
    also: Batch,
) -> Result<Token, TokenError> {
    let (read, used) = find(store, token, identity, now_unix_secs)?;
    let mut batch = also;
    match used {
        Use::First => use_up(&mut batch, token, &read, (identity, now_unix_secs))?,
        Use::Again => {}
    }
    match store.commit_blocking(&batch) {
        Ok(()) => Ok(read),
        // It was used, or revoked, since it was read.
        Err(StoreError::Conflict { tree, .. }) if tree == TREE => {
            find(store, token, identity, now_unix_secs).and(Err(TokenRefusal::Redeemed.into()))
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
        tokens.push(token.status(TokenId(*id)));
    }
    Ok(tokens)
}

/// Makes a token worthless, for ever; durable when this returns. Fails where nobody made it, and where it was used: it is the
/// device that is revoked then. One that was revoked before stays so. Blocks.
pub fn revoke(store: &Store, id: TokenId, now_unix_secs: u64) -> Result<(), TokenError> {
    let found: Vec<(Key, Token)> =
        store.scan_prefix(TREE, &Key::from(id.0))?.collect::<Result<_, StoreError>>()?;
    let mut found = found.into_iter();
    let (key, token) = match (found.next(), found.next()) {
        (None, _) => return Err(TokenRefusal::Unknown.into()),
        (Some(one), None) => one,
        (Some(_), Some(_)) => return Err(TokenError::Ambiguous),
    };
    if token.redeemed_unix_secs.is_some() {
        return Err(TokenRefusal::Redeemed.into());
    }
    if token.revoked_unix_secs.is_some() {
        return Ok(());
    }
    let revoked = Token { revoked_unix_secs: Some(now_unix_secs), ..token.clone() };
    let mut batch = Batch::new();
    batch.replace(TREE, key, &token, &revoked)?;
    match store.commit_blocking(&batch) {
        Ok(()) => Ok(()),
        // A device was quicker.
        Err(StoreError::Conflict { .. }) => Err(TokenRefusal::Redeemed.into()),
        Err(error) => Err(error.into()),
    }
}

/// How the token with this key is called; it says nothing of the key.
pub fn id_of(token: IdentityPublic) -> TokenId {
    TokenId(key(token).as_bytes().first_chunk().copied().unwrap_or_default())
}

fn key(token: IdentityPublic) -> Key {
    let mut context = Context::new(&SHA256);
    context.update(b"nightshift bootstrap token v2");
    context.update(&token.0);
    Key::from(context.finish().as_ref())
}

#[cfg(test)]
mod tests {
    use aggregation::IdentityKey;
    use ring::rand::SystemRandom;

    use super::*;

    const NOW: u64 = 1_800_000_000;
    const ANNA: IdentityPublic = IdentityPublic([1; 32]);
    const BELA: IdentityPublic = IdentityPublic([2; 32]);

    #[tokio::test]
    async fn a_token_is_redeemed_once_and_stays_so_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let token = issued(&store).await;
        let mut also = Batch::new();
        also.insert("devices", 1, &"phone").unwrap();
        redeem(&store, token, (ANNA, NOW + 1), also).unwrap();
        assert_eq!(get(&store, token).unwrap().unwrap().redeemed_unix_secs, Some(NOW + 1));
        drop(store);

        let store = Store::open(folder.path()).unwrap();
        assert_eq!(store.get::<String>("devices", 1).unwrap().as_deref(), Some("phone"));
        let error = redeem(&store, token, (BELA, NOW + 2), Batch::new());
        assert!(matches!(error, Err(TokenError::Refused(TokenRefusal::Redeemed))));
        // Whose answer was lost may ask again, as long as the token would have lasted.
        redeem(&store, token, (ANNA, NOW + 59), Batch::new()).unwrap();
        assert_eq!(get(&store, token).unwrap().unwrap().redeemed_unix_secs, Some(NOW + 1));
        let error = redeem(&store, token, (ANNA, NOW + 60), Batch::new());
        assert!(matches!(error, Err(TokenError::Refused(TokenRefusal::Redeemed))));
    }

    #[tokio::test]
    async fn of_many_that_redeem_at_once_one_succeeds() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let token = issued(&store).await;
        let attempt = |id: u8| redeem(&store, token, (IdentityPublic([id; 32]), NOW), Batch::new()).is_ok();
        let wins: usize = std::thread::scope(|scope| {
            let attempts: Vec<_> = (0..3).map(|id| scope.spawn(move || attempt(id))).collect();
            attempts.into_iter().map(|attempt| usize::from(attempt.join().unwrap())).sum()
        });
        assert_eq!(wins, 1);
    }

    #[tokio::test]
    async fn a_token_is_worth_nothing_from_its_last_second_on() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let token = issued(&store).await;
        let error = redeem(&store, token, (ANNA, NOW + 60), Batch::new());
        assert!(matches!(error, Err(TokenError::Refused(TokenRefusal::Expired { .. }))));
        redeem(&store, token, (ANNA, NOW + 59), Batch::new()).unwrap();
    }

    #[tokio::test]
    async fn a_failed_enrollment_does_not_use_the_token_up() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let token = issued(&store).await;
        let mut taken = Batch::new();
        taken.put("devices", 1, &"phone").unwrap();
        store.commit(taken).await.unwrap();
        let mut also = Batch::new();
        also.insert("devices", 1, &"tablet").unwrap();
        let error = redeem(&store, token, (ANNA, NOW), also);
        assert!(matches!(error, Err(TokenError::Store(StoreError::Conflict { .. }))));
        assert_eq!(list(&store).unwrap()[0].redeemed_unix_secs, None);
    }

    #[tokio::test]
    async fn a_revoked_token_enrolls_nobody_and_one_that_was_used_is_not_revoked() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let token = issued(&store).await;
        let id = list(&store).unwrap()[0].token;
        let unknown = revoke(&store, TokenId([0; 8]), NOW);
        assert!(matches!(unknown, Err(TokenError::Refused(TokenRefusal::Unknown))));
        revoke(&store, id, NOW + 1).unwrap();
        revoke(&store, id, NOW + 2).unwrap();
        assert_eq!(list(&store).unwrap()[0].revoked_unix_secs, Some(NOW + 1));
        let error = redeem(&store, token, (ANNA, NOW + 3), Batch::new());
        assert!(matches!(error, Err(TokenError::Refused(TokenRefusal::Revoked))));

        let token = issued(&store).await;
        redeem(&store, token, (ANNA, NOW), Batch::new()).unwrap();
        let other = list(&store).unwrap().into_iter().find(|token| token.token != id).unwrap();
        let used = revoke(&store, other.token, NOW);
        assert!(matches!(used, Err(TokenError::Refused(TokenRefusal::Redeemed))));
    }

    #[tokio::test]
    async fn an_unknown_token_is_refused_and_neither_secret_nor_key_is_a_key_of_the_store() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let token = issued(&store).await;
        let other = IdentityKey::from_seed(&[9; 32]).public();
        let error = redeem(&store, other, (ANNA, NOW), Batch::new());
        assert!(matches!(error, Err(TokenError::Refused(TokenRefusal::Unknown))));
        assert!(store.get::<Token>(TREE, token.0).unwrap().is_none());
        assert_eq!(list(&store).unwrap()[0].label, "kitchen tablet");
    }

    async fn issued(store: &Store) -> IdentityPublic {
        let new = NewToken {
            label: "kitchen tablet",
            address: "localhost:7443",
            pin: [7; 32],
            authority: IdentityPublic([8; 32]),
            lifetime_secs: 60,
        };
        let text = issue(store, new, NOW, &SystemRandom::new()).await.unwrap();
        let token: BootstrapToken = text.reveal().parse().unwrap();
        assert_eq!((token.address(), token.authority()), ("localhost:7443", IdentityPublic([8; 32])));
        token.key().public()
    }
}
