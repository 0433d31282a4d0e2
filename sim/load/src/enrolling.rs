//! Devices become devices of the coordinator, each by a token of its own, as the devices of users do. Those of an earlier run
//! are used again.

use std::sync::Arc;
use std::time::Duration;

use client::enrollment::{EnrollmentError, Membership};
use client::transport::TransportError;
use proto::message::Rejection;
use shell::cli::note;
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};
use tokio::time::sleep;

use crate::clock::instant;
use crate::common::Common;
use crate::place::{DevicePlace, Place, PlaceError};
use crate::player::Player;
use crate::tokens::{Tokens, TokensError};
use crate::words;

/// How often an enrollment is tried where the coordinator cannot be reached any more, and how long that is waited for in between.
const TRIES: u32 = 5;
const BETWEEN: Duration = Duration::from_secs(2);

/// How an enrollment is called among requests.
const ENROLL: &str = "enroll";

/// So many enrollments, each said.
const SAID_EACH: usize = 100;

/// Why there are not as many devices as were asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnrollingError {
    /// There are fewer tokens than devices that need one.
    #[error(
        "device {device} is not enrolled and there is no token for it: {tokens}, and the first is for device 0; nobody enrolled. \
         `nightshift device token --count N --label LABEL` makes tokens, for --token-file"
    )]
    NoToken {
        /// The first that needs one.
        device: u32,
        /// How many there are, in words.
        tokens: String,
    },
    /// The tokens cannot be read.
    #[error(transparent)]
    Tokens(#[from] TokensError),
    /// The folder cannot be used.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// The coordinator does not take a token.
    #[error(
        "device {device} is not enrolled ({place}): {why}; {done} are enrolled and kept, and no load was made"
    )]
    Refused {
        /// Which.
        device: u32,
        /// Where its token stands.
        place: String,
        /// What the coordinator said.
        why: Rejection,
        /// How many are enrolled.
        done: usize,
    },
    /// It did not work.
    #[error("device {device} cannot enroll: {why}; {done} are enrolled and kept, and no load was made")]
    Failed {
        /// Which.
        device: u32,
        /// Why.
        why: EnrollmentError,
        /// How many are enrolled.
        done: usize,
    },
    /// A fault of this program.
    #[error(
        "a device could not enroll by a fault of this program: {why}; {done} are enrolled and kept, and no load was made"
    )]
    Broken {
        /// What it said of itself.
        why: String,
        /// How many are enrolled.
        done: usize,
    },
    /// What it enrolled by is not there any more.
    #[error(
        "what device {device} is enrolled by is gone from its folder again: something else changes it, and no load was made"
    )]
    Gone {
        /// Which.
        device: u32,
    },
    /// It was told to stop.
    #[error("stopped while devices enrolled: {done} are enrolled and kept, and no load was made")]
    Stopped {
        /// How many are enrolled.
        done: usize,
    },
}

/// The devices of these numbers, and how many of them had to enroll first.
pub(crate) async fn players(
    place: &Place,
    numbers: &[u32],
    tokens: &Tokens,
    (common, at_once): (&Arc<Common>, usize),
) -> Result<(Vec<Player>, u32), EnrollingError> {
    let mut missing = Vec::new();
    for number in numbers {
        let device = place.device(*number);
        if device.membership()?.is_some() {
            continue;
        }
        // Nobody is enrolled where not everybody can be.
        let Some(token) = tokens.of(*number) else {
            return Err(EnrollingError::NoToken { device: *number, tokens: tokens.said() });
        };
        let (token, line) = token?;
        missing.push((*number, device, token, line));
    }
    let wanted = missing.len();
    if wanted > 0 {
        note(&format!("{wanted} of {} devices enroll first", numbers.len()));
    }
    // One alone, until it is one: a coordinator that is not there, or is another, is asked once and not by everybody.
    let (turns, mut enrolling) = (Arc::new(Semaphore::new(1)), JoinSet::new());
    for (number, device, token, line) in missing {
        let (common, turns) = (Arc::clone(common), Arc::clone(&turns));
        enrolling.spawn(async move {
            let _turn = turns.acquire().await;
            let enrolled = tokio::select! {
                enrolled = enroll(&common, &device, &token) => enrolled.map(Some),
                () = common.stop.cancelled() => Ok(None),
            };
            (number, line, enrolled)
        });
    }
    all_enrolled(enrolling, common, (&turns, at_once)).await?;
    let mut players = Vec::new();
    for number in numbers {
        let device = place.device(*number);
        let Some(membership) = device.membership()? else {
            return Err(EnrollingError::Gone { device: *number });
        };
        players.push(Player::new(device, membership, Arc::clone(common))?);
    }
    Ok((players, u32::try_from(wanted).unwrap_or(u32::MAX)))
}

/// Which device, where its token stands, and what came of it; nothing where it was told to stop.
type One = (u32, String, Result<Option<()>, Enrolling>);

/// Waits until all are enrolled, `at_once` at the same time once one is.
async fn all_enrolled(
    mut enrolling: JoinSet<One>,
    common: &Common,
    (turns, at_once): (&Semaphore, usize),
) -> Result<(), EnrollingError> {
    let wanted = enrolling.len();
    let (mut done, mut stopped) = (0, false);
    while let Some(joined) = enrolling.join_next().await {
        let broken = |error: JoinError| EnrollingError::Broken { why: error.to_string(), done };
        let (device, line, enrolled) = joined.map_err(broken)?;
        match enrolled {
            Ok(Some(())) => {
                if done == 0 {
                    turns.add_permits(at_once.saturating_sub(1));
                }
                done += 1;
                if done % SAID_EACH == 0 {
                    note(&format!("{done} of {wanted} are enrolled"));
                }
            }
            Ok(None) => stopped = true,
            Err(Enrolling::Place(error)) => return Err(error.into()),
            Err(Enrolling::Refused(EnrollmentError::Transport(TransportError::Rejected(why)))) => {
                return Err(EnrollingError::Refused { device, place: line, why, done });
            }
            Err(Enrolling::Refused(why)) => return Err(EnrollingError::Failed { device, why, done }),
        }
    }
    if stopped || common.stop.is_cancelled() {
        return Err(EnrollingError::Stopped { done });
    }
    Ok(())
}

/// Why one device did not enroll.
enum Enrolling {
    Place(PlaceError),
    Refused(EnrollmentError),
}

async fn enroll(
    common: &Common,
    device: &DevicePlace,
    token: &proto::token::BootstrapToken,
) -> Result<(), Enrolling> {
    let way = (Some(common.load.coordinator.as_str()), &common.proxy);
    let mut tries = 0;
    loop {
        tries += 1;
        let due = instant();
        match Membership::by_token(&device.keys(), token, way, None).await {
            Ok(membership) => {
                common.answered(ENROLL, "enrolled", (due, instant()));
                return device.keep_membership(&membership).map_err(Enrolling::Place);
            }
            Err(EnrollmentError::Transport(error)) => {
                let (word, text) = (words::of_failure(&error), error.to_string());
                common.failed(ENROLL, word, &text);
                // With these keys the same token works again, where an answer was lost.
                let may_pass = match &error {
                    TransportError::Unreachable { .. } => common.tally().count_of(ENROLL) > 0,
                    TransportError::Rejected(Rejection::Unavailable(_)) => true,
                    TransportError::Rejected(_)
                    | TransportError::CertificateEnded { .. }
                    | TransportError::Answer(_)
                    | TransportError::Setup { .. }
                    | TransportError::Artifact { .. } => false,
                };
                if !may_pass || tries == TRIES {
                    if matches!(error, TransportError::Rejected(_)) && !may_pass {
                        device.remove().map_err(Enrolling::Place)?;
                    }
                    return Err(Enrolling::Refused(EnrollmentError::Transport(error)));
                }
                sleep(BETWEEN).await;
            }
            Err(error) => return Err(Enrolling::Refused(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::report::Load;
    use crate::shape::Shape;

    #[tokio::test]
    async fn a_fault_of_the_program_is_no_stop_of_its_user() {
        let coordinator = "here:7443".to_owned();
        let load = Load {
            coordinator,
            devices: 2,
            shape: Shape::Herd,
            secs: 1,
            versions: None,
            train_secs: 0.0,
            step: 0.0,
        };
        let common = Common::new(load, BTreeSet::new(), 1, CancellationToken::new());
        let turns = Semaphore::new(1);
        let mut enrolling: JoinSet<One> = JoinSet::new();
        enrolling.spawn(async { panic!("no keys") });
        let error = all_enrolled(enrolling, &common, (&turns, 2)).await.unwrap_err();
        assert!(matches!(error, EnrollingError::Broken { done: 0, .. }), "{error}");
        assert!(error.to_string().contains("no keys"), "{error}");
        let mut enrolling: JoinSet<One> = JoinSet::new();
        enrolling.spawn(async { (3, String::new(), Ok(None)) });
        let error = all_enrolled(enrolling, &common, (&turns, 2)).await.unwrap_err();
        assert!(matches!(error, EnrollingError::Stopped { done: 0 }), "{error}");
    }
}
