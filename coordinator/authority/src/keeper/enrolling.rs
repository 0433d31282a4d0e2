//! Where anything is stated of a device: by its token, and when it renews.

use aggregation::{Credential, IdentityPublic, Logged, Signature};
use proto::authority::{AttestedBy, Issued};
use proto::convert::{Enrollment, Renewal};
use proto::ids::{DeviceId, Digest};
use proto::message::Rejection;
use proto::shown::shown;
use shell::store::Batch;

use super::{DAYS, DEVICES, IDENTITIES, Keeper, new_device, unavailable};
use crate::decide::{self, Attested, Device, Enrolling, Known, Refusal, Renewing, Statement, Token};
use crate::kept_log::{Turn, label_tag};
use crate::tokens::{self, TokenRefusal};

/// Who asks to enroll.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applicant {
    /// Its name, which is new where it never enrolled.
    pub id: DeviceId,
    /// The label of its token.
    pub label: String,
    /// Whether it repeats what it asked: it is answered as before.
    pub is_known: bool,
}

/// What is known of a request to enroll.
struct Seen {
    who: Enrolling,
    token: Token,
    device: Option<(DeviceId, Device)>,
    new_today: u32,
}

/// What the log says of a device beside its key and name.
#[derive(Clone, Copy, Debug)]
struct Said<'a> {
    label: &'a str,
    enrolled_unix_secs: u64,
    attested: Option<&'a Attested>,
}

impl<'a> Said<'a> {
    fn of(device: &'a Device) -> Self {
        let Device { label, enrolled_unix_secs, attested, .. } = device;
        Self { label, enrolled_unix_secs: *enrolled_unix_secs, attested: attested.as_ref() }
    }
}

impl Keeper {
    /// Who would enroll by this request, and what it would be called; nothing is used up. Blocks.
    pub fn applicant(&self, asked: &Enrollment, now_unix_secs: u64) -> Result<Applicant, Rejection> {
        let _deciding = self.deciding();
        let seen = self.seen(asked, now_unix_secs)?;
        Ok(match seen.who {
            Enrolling::Repeats(id) => Applicant { id, label: seen.token.label, is_known: true },
            Enrolling::Again(id) => Applicant { id, label: seen.token.label, is_known: false },
            Enrolling::New => Applicant { id: new_device()?, label: seen.token.label, is_known: false },
        })
    }

    /// What is known of a request to enroll.
    fn seen(&self, asked: &Enrollment, now_unix_secs: u64) -> Result<Seen, Rejection> {
        let token = tokens::get(&self.store, asked.token).map_err(unavailable)?;
        let device = self.with_identity(asked.identity)?;
        let new_today: Option<u32> = self.store.get(DAYS, decide::day(now_unix_secs)).map_err(unavailable)?;
        let new_today = new_today.unwrap_or(0);
        let known = Known {
            token: token.as_ref(),
            device: device.as_ref().map(|(id, device)| (*id, device)),
            enrolled_today: new_today,
        };
        let who = decide::enroll(&self.terms, known, asked, now_unix_secs)?;
        let token = token.ok_or(Refusal::Token(TokenRefusal::Unknown))?;
        Ok(Seen { who, token, device, new_today })
    }

    /// Makes a device of whoever holds a token, by the name under which its machine was looked at, or gives the answer once more
    /// that was lost; durable when this returns. Blocks.
    pub fn enroll(
        &self,
        asked: &Enrollment,
        (proposed, attested): (DeviceId, Option<Attested>),
        now_unix_secs: u64,
    ) -> Result<Issued, Rejection> {
        let _deciding = self.deciding();
        let Seen { who, token, device, new_today } = self.seen(asked, now_unix_secs)?;
        let day = decide::day(now_unix_secs);
        let (id, before) = match (who, device) {
            (Enrolling::Repeats(id), Some((_, device))) => return self.issued(id, &device),
            (Enrolling::Again(id), Some((_, device))) => (id, Some(device)),
            (Enrolling::New | Enrolling::Again(_) | Enrolling::Repeats(_), _) => (proposed, None),
        };
        if id != proposed {
            let why = "the same key was enrolled by another request meanwhile; ask again";
            return Err(Rejection::Unavailable(why.to_owned()));
        }
        let mut batch = Batch::new();
        let by = (asked.identity, now_unix_secs);
        tokens::use_up(&mut batch, asked.token, &token, by).map_err(unavailable)?;
        if before.is_none() {
            batch.put(DAYS, day, &(new_today + 1)).map_err(unavailable)?;
            batch.insert(IDENTITIES, asked.identity.0, &id).map_err(unavailable)?;
        }
        let label = token.label;
        let enrolled_unix_secs = before.map_or(now_unix_secs, |before| before.enrolled_unix_secs);
        let mut turn = self.log.turn();
        let said = Said { label: &label, enrolled_unix_secs, attested: attested.as_ref() };
        let stated = self.state((&mut batch, &mut turn), (id, asked.identity), said, now_unix_secs)?;
        let identity = Digest(asked.identity.0);
        let device =
            Device { label, identity, enrolled_unix_secs, stated, attested, revoked_unix_secs: None };
        batch.put(DEVICES, id.0, &device).map_err(unavailable)?;
        self.store.commit_blocking(&batch).map_err(unavailable)?;
        turn.kept();
        tracing::info!("device enrolled");
        tracing::debug!(device = %id, label = %shown(&device.label), "device enrolled");
        self.issued(id, &device)
    }

    /// States the same of a device for longer, unless it is early; durable when this returns. Blocks.
    pub fn renew(&self, asked: &Renewal, now_unix_secs: u64) -> Result<Issued, Rejection> {
        let _deciding = self.deciding();
        let device = self.device(asked.device)?;
        let renewing = decide::renew(&self.terms, device.as_ref(), asked, now_unix_secs)?;
        let device = device.ok_or(Refusal::NotEnrolled)?;
        match renewing {
            Renewing::Repeats => return self.issued(asked.device, &device),
            Renewing::States => {}
        }
        let mut batch = Batch::new();
        let identity = IdentityPublic(device.identity.0);
        let mut turn = self.log.turn();
        let who = (asked.device, identity);
        let stated = self.state((&mut batch, &mut turn), who, Said::of(&device), now_unix_secs)?;
        let device = Device { stated, ..device };
        batch.put(DEVICES, asked.device.0, &device).map_err(unavailable)?;
        self.store.commit_blocking(&batch).map_err(unavailable)?;
        turn.kept();
        tracing::debug!(device = %asked.device, "credential renewed");
        self.issued(asked.device, &device)
    }

    /// States that a device has a key, and has a batch write that into the log. Nothing is stated anywhere else.
    fn state(
        &self,
        (batch, turn): (&mut Batch, &mut Turn<'_>),
        (device, identity): (DeviceId, IdentityPublic),
        said: Said<'_>,
        now_unix_secs: u64,
    ) -> Result<Statement, Rejection> {
        let expires_unix_secs = now_unix_secs.saturating_add(self.terms.credential_secs);
        let logged = self.logged(turn.place(), said);
        let credential = Credential::issue_logged(&self.key, device.0, identity, expires_unix_secs, logged);
        if let Some((_, leaf)) = credential.leaf() {
            turn.write(batch, &leaf, &self.key, now_unix_secs).map_err(unavailable)?;
        }
        let (place, signature) = (turn.place(), hex::encode(credential.signature.0));
        Ok(Statement { issued_unix_secs: now_unix_secs, expires_unix_secs, place, signature })
    }

    /// What the log says of a device.
    fn logged(&self, place: u64, said: Said<'_>) -> Logged {
        let Said { label, enrolled_unix_secs, attested } = said;
        let attested = attested.map_or([0; 32], |attested| attested.policy.0);
        Logged { place, enrolled_unix_secs, label: label_tag(&self.key, label), attested }
    }

    /// What was stated of a device last.
    fn issued(&self, id: DeviceId, device: &Device) -> Result<Issued, Rejection> {
        let mut signature = [0; 64];
        hex::decode_to_slice(&device.stated.signature, &mut signature).map_err(|_| {
            Rejection::Unavailable("the authority's record of this device is damaged".to_owned())
        })?;
        let credential = Credential {
            device: id.0,
            identity: IdentityPublic(device.identity.0),
            expires_unix_secs: device.stated.expires_unix_secs,
            logged: Some(self.logged(device.stated.place, Said::of(device))),
            signature: Signature(signature),
        };
        let (issued_unix_secs, label) = (device.stated.issued_unix_secs, device.label.clone());
        let attested = device.attested.as_ref();
        let attested = attested.map(|by| AttestedBy { kind: by.kind.clone(), at_unix_secs: by.at_unix_secs });
        Ok(Issued { credential, issued_unix_secs, label, attested })
    }
}
