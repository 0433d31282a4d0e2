//! Where a database is.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::str::FromStr;

use tokio_postgres::Config;
use tokio_postgres::config::Host;

/// The address of a database, `postgresql://user@host:5432/database`, which holds no secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    config: Config,
    shown: String,
}

/// What an address is that cannot be used. Nothing of it is repeated: it may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It is of another form.
    #[error("one of another form, instead of postgresql://user@host:5432/database")]
    Form,
    /// A password in it would be shown with it.
    #[error("one that holds a password, which belongs into a file: name that as password_file")]
    Password,
    /// What stands behind a question mark.
    #[error("one with parameters behind `?`, which are not read: leave them out")]
    Parameters,
    /// More than one server.
    #[error("one with more than one host")]
    Hosts,
    /// Nobody.
    #[error("one without a user")]
    User,
    /// No database.
    #[error("one without a database")]
    Database,
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if !["postgresql://", "postgres://"].iter().any(|scheme| text.starts_with(scheme)) {
            return Err(AddressError::Form);
        }
        if text.contains('?') {
            return Err(AddressError::Parameters);
        }
        let config: Config = text.parse().map_err(|_| AddressError::Form)?;
        if config.get_password().is_some() {
            return Err(AddressError::Password);
        }
        if config.get_user().is_none_or(str::is_empty) {
            return Err(AddressError::User);
        }
        if config.get_dbname().is_none_or(str::is_empty) {
            return Err(AddressError::Database);
        }
        match config.get_hosts() {
            [_] => Ok(Self { config, shown: text.to_owned() }),
            [] => Err(AddressError::Form),
            [_, _, ..] => Err(AddressError::Hosts),
        }
    }
}

impl Address {
    /// What the driver is given.
    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// Whether the way to it stays on this machine: a socket in a folder, or a loopback address.
    pub fn is_local(&self) -> bool {
        match self.config.get_hosts().first() {
            Some(Host::Tcp(host)) => {
                host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
            }
            Some(Host::Unix(_)) => true,
            None => false,
        }
    }

    /// The folder of its socket, where it is reached by one.
    pub fn socket(&self) -> Option<&Path> {
        match self.config.get_hosts().first() {
            Some(Host::Unix(folder)) => Some(folder),
            Some(Host::Tcp(_)) | None => None,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Address").field(&self.shown).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_as_it_was_written() {
        for text in [
            "postgresql://night@db.example:5433/shift",
            "postgres://n@%2Frun%2Fpostgresql/n",
            "postgresql://n@[::1]/n",
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
            assert_eq!(address.is_local(), !text.contains("example"));
            assert_eq!(address.socket().is_some(), text.contains("%2F"));
        }
    }

    #[test]
    fn what_is_wrong_with_an_address_is_said_without_it() {
        for (text, expected) in [
            ("postgresql://n:geheim@h/n", AddressError::Password),
            ("postgresql://n@h/n?password=geheim", AddressError::Parameters),
            ("postgresql://n@h,i/n", AddressError::Hosts),
            ("postgresql://h/n", AddressError::User),
            ("postgresql://n@h", AddressError::Database),
            ("host=h user=n password=geheim", AddressError::Form),
            ("postgresql://n@h:port/n", AddressError::Form),
        ] {
            let error = text.parse::<Address>().unwrap_err();
            assert_eq!(error, expected, "{text}");
            assert!(!format!("{error} {error:?}").contains("geheim"));
        }
    }
}
