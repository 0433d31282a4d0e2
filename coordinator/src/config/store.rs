//! The keys of the configuration that say where the store is. What does not go together is refused by its key.

use std::path::{Path, PathBuf};

use ::store::{Address, AddressError};
use serde::Deserialize;
use shell::config::{OutOfRange, require};
use shell::home;

/// Where the store is: in the state folder, or in a database.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreKeys {
    /// A PostgreSQL database, `postgresql://user@host:5432/database`; empty for a store in the state folder. Default empty.
    pub address: String,
    /// A file with the user's password, readable by its owner only; empty for none. Default none.
    #[serde(deserialize_with = "home::path")]
    pub password_file: PathBuf,
    /// A file (PEM) with the authorities that vouch for the server; empty where it is asked in clear. Default none.
    #[serde(deserialize_with = "home::path")]
    pub ca_file: PathBuf,
    /// The most connections, beside one that listens; 1 to 500. Default 8.
    pub connections: u32,
    /// Seconds that a statement may take, and what it waits for; 1 to 300. Default 10.
    pub statement_secs: u32,
    /// Whether a server beyond this machine may be asked in clear. Default false.
    pub allow_plain: bool,
}

impl Default for StoreKeys {
    fn default() -> Self {
        Self {
            address: String::new(),
            password_file: PathBuf::new(),
            ca_file: PathBuf::new(),
            connections: 8,
            statement_secs: 10,
            allow_plain: false,
        }
    }
}

impl StoreKeys {
    /// Whether it is in a database.
    pub fn is_database(&self) -> bool {
        !self.address.is_empty()
    }

    /// Fails where a value is out of its range, or keys do not go together. Nothing of an address is repeated that may be secret.
    pub fn check(&self) -> Result<(), OutOfRange> {
        let Self { address, password_file, ca_file, connections, statement_secs, allow_plain } = self;
        let is_empty = |path: &Path| path.as_os_str().is_empty();
        require((1..=500).contains(connections), "store.connections", "1 to 500", connections)?;
        require((1..=300).contains(statement_secs), "store.statement_secs", "1 to 300", statement_secs)?;
        if address.is_empty() {
            let unused = "empty where store.address is";
            require(is_empty(password_file), "store.password_file", unused, &password_file.display())?;
            require(is_empty(ca_file), "store.ca_file", unused, &ca_file.display())?;
            return require(
                !allow_plain,
                "store.allow_plain",
                "false where store.address is empty",
                allow_plain,
            );
        }
        let form = "an address of the form postgresql://user@host:5432/database";
        let parsed: Result<Address, AddressError> = address.parse();
        let address = match parsed {
            Ok(address) => address,
            Err(error) => return require(false, "store.address", form, &error),
        };
        if address.socket().is_some() {
            let clear = "empty where store.address is a socket in a folder: there is no TLS";
            return require(is_empty(ca_file), "store.ca_file", clear, &ca_file.display());
        }
        let needed = "a file in PEM with the authorities of the server's certificate, where store.address is not this machine and \
                      store.allow_plain is not true";
        let is_safe = address.is_local() || *allow_plain || !is_empty(ca_file);
        require(is_safe, "store.ca_file", needed, &"nothing")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<StoreKeys, String> {
        shell::config::parse(text, Path::new("c.toml"), StoreKeys::check).map_err(|error| error.to_string())
    }

    #[test]
    fn keys_that_go_together_are_taken() {
        for text in [
            "",
            "address = 'postgresql://n@127.0.0.1:5432/n'",
            "address = 'postgresql://n@%2Frun%2Fpostgresql/n'\npassword_file = '/p'",
            "address = 'postgresql://n@db.example/n'\nca_file = '/ca.pem'\nconnections = 500\nstatement_secs = 300",
            "address = 'postgresql://n@db.example/n'\nallow_plain = true",
        ] {
            parse(text).unwrap();
        }
    }

    #[test]
    fn what_does_not_go_together_is_refused_by_its_key_and_no_password_is_repeated() {
        for (text, expected) in [
            ("adress = 'x'", "unknown field"),
            ("connections = 0", "store.connections must be 1 to 500"),
            ("statement_secs = 301", "store.statement_secs must be 1 to 300"),
            ("password_file = '/p'", "store.password_file must be empty"),
            ("ca_file = '/p'", "store.ca_file must be empty"),
            ("allow_plain = true", "store.allow_plain must be false"),
            (
                "address = 'postgresql://n:geheim@h/n'",
                "got one that holds a password, which belongs into a file",
            ),
            ("address = 'postgresql://n@h/n?password=geheim'", "got one with parameters behind `?`"),
            ("address = 'mysql://n:geheim@h/n'", "got one of another form"),
            ("address = 'postgresql://n@db.example/n'", "store.ca_file must be a file in PEM"),
            ("address = 'postgresql://n@%2Frun/n'\nca_file = '/ca'", "there is no TLS"),
        ] {
            let message = parse(text).unwrap_err();
            assert!(message.contains(expected) && !message.contains("geheim"), "{message}");
        }
    }
}
