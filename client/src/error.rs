//! Why a device did not do what it was asked for.

use proto::message::Rejection;
use session::policy::Breach;

use crate::enrollment::EnrollmentError;
use crate::keys::KeyError;
use crate::store::DeviceStoreError;
use crate::trainer::TrainerError;
use crate::transport::TransportError;

/// Why a device did not do what it was asked for; [`Self::kind`] says whose business that is.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What is durable cannot be read or kept.
    #[error(transparent)]
    Store(#[from] DeviceStoreError),
    /// The device could not be enrolled, or is not.
    #[error(transparent)]
    Enrollment(#[from] EnrollmentError),
    /// The trainer cannot train: the user's text cannot be read, or there is none.
    #[error(transparent)]
    Trainer(#[from] TrainerError),
    /// What trains broke too often in a row.
    #[error("{0}")]
    TrainerRests(String),
    /// Training came to nothing that could be contributed, for somebody who runs once.
    #[error("{0}")]
    NotTrained(String),
    /// The device's own limits forbid it.
    #[error("this device does not take part: {0}")]
    Breach(Breach),
    /// A base that a task needs does not come from the coordinator.
    #[error("{0}")]
    NoBase(String),
    /// The coordinator does not know this device.
    #[error("{0}")]
    NotEnrolled(Rejection),
    /// The coordinator does not answer a device that runs once, or gives it nothing that it can do.
    #[error("{0}")]
    Coordinator(String),
    /// A thread ended in the middle of its work.
    #[error("a version could not be made ready: {0}; start the agent again")]
    Thread(String),
    /// A condition does not hold.
    #[error("this device may not train now: {0}; wait, or say --override-conditions")]
    Conditions(String),
}

/// Whose business an [`Error`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The user's text or configuration.
    Input,
    /// The device's own folder, disk or threads.
    Device,
    /// The coordinator cannot be reached, answers wrongly, or does not know this device.
    Coordinator,
    /// The user's limits.
    Limits,
    /// The machine: it is busy, hot, or not on the charger.
    Conditions,
}

impl Error {
    /// Whose business it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(_) | Self::Thread(_) | Self::TrainerRests(_) | Self::NotTrained(_) => {
                ErrorKind::Device
            }
            Self::Enrollment(error) => match error {
                EnrollmentError::Keys(_)
                | EnrollmentError::Store(_)
                | EnrollmentError::Tpm(_)
                | EnrollmentError::Interrupted
                | EnrollmentError::Damaged(_) => ErrorKind::Device,
                EnrollmentError::Transport(_)
                | EnrollmentError::Answer(_)
                | EnrollmentError::OtherAuthority { .. }
                | EnrollmentError::NotEnrolled => ErrorKind::Coordinator,
            },
            Self::Trainer(_) => ErrorKind::Input,
            Self::Breach(_) | Self::NoBase(_) => ErrorKind::Limits,
            Self::NotEnrolled(_) | Self::Coordinator(_) => ErrorKind::Coordinator,
            Self::Conditions(_) => ErrorKind::Conditions,
        }
    }
}

impl Error {
    /// Whether it is that the device's folder cannot be written now, which may pass: its disk is full, or was made
    /// read-only.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Store(error) | Self::Enrollment(EnrollmentError::Store(error)) => error.may_pass(),
            Self::Enrollment(_)
            | Self::Trainer(_)
            | Self::TrainerRests(_)
            | Self::NotTrained(_)
            | Self::Breach(_)
            | Self::NoBase(_)
            | Self::NotEnrolled(_)
            | Self::Coordinator(_)
            | Self::Thread(_)
            | Self::Conditions(_) => false,
        }
    }
}

impl From<KeyError> for Error {
    fn from(error: KeyError) -> Self {
        Self::Enrollment(error.into())
    }
}

impl From<TransportError> for Error {
    fn from(error: TransportError) -> Self {
        Self::Enrollment(error.into())
    }
}
