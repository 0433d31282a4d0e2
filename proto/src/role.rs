//! What an operator may do: three roles, each of which may all that the one before may.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What the holder of a certificate may do at a coordinator. The order is that of power: a viewer is less than an
/// operator, and an operator is less than an admin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Reads: tasks, versions, devices, health.
    Viewer,
    /// That, and runs tasks and lets devices in and shuts them out.
    Operator,
    /// That, and decides who operates, and reads the audit log.
    ///
    /// Also what a certificate of before there were roles is: it could do everything, and a lesser role would leave a
    /// coordinator that was updated with nobody who can make an admin.
    #[default]
    Admin,
}

/// A word that is no role.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a role is viewer, operator or admin, got {0:?}")]
pub struct RoleError(String);

impl Role {
    /// Every role, the least first.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Operator, Self::Admin];

    /// The role as a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = RoleError;

    fn from_str(text: &str) -> Result<Self, RoleError> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or_else(|| RoleError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_read_back_from_its_word_and_each_may_more_than_the_one_before() {
        for role in Role::ALL {
            assert_eq!(role.to_string().parse(), Ok(role));
            assert_eq!(serde_json::to_string(&role).unwrap(), format!("\"{role}\""));
        }
        assert!(Role::ALL.is_sorted() && Role::Viewer < Role::Operator && Role::Operator < Role::Admin);
        for other in ["", "Admin", "admin ", "root"] {
            assert_eq!(other.parse::<Role>(), Err(RoleError(other.to_owned())));
        }
    }
}
