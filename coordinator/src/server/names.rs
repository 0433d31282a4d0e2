//! By which names a coordinator is reached, where its configuration does not say.

use std::net::{IpAddr, Ipv4Addr};

/// The names by which devices reach the coordinator: where none is given, the address that it listens on, if that is one.
pub(super) fn public_names(given: &[String], listens: IpAddr) -> Vec<String> {
    if !given.is_empty() {
        return given.to_vec();
    }
    if listens.is_unspecified() {
        tracing::warn!(
            "tokens say `localhost`, which other machines do not reach: say in `public_names` how they reach this one"
        );
        return Vec::new();
    }
    if listens == IpAddr::V4(Ipv4Addr::LOCALHOST) { Vec::new() } else { vec![listens.to_string()] }
}

/// The names in the server's certificate: those by which devices reach it, and the address at which operators do.
pub(super) fn certified_names(mut names: Vec<String>, for_operators: IpAddr) -> Vec<String> {
    if !for_operators.is_unspecified() {
        names.push(for_operators.to_string());
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_name_the_address_that_is_listened_on_where_nothing_else_is_said() {
        let given = ["owl.example".to_owned()];
        let names = |given: &[String], listens: &str| public_names(given, listens.parse().unwrap());
        assert_eq!(names(&given, "192.0.2.7"), given);
        assert_eq!(names(&[], "192.0.2.7"), ["192.0.2.7"]);
        assert_eq!(names(&[], "2001:db8::1"), ["2001:db8::1"]);
        assert_eq!(names(&[], "::1"), ["::1"]);
        for listens in ["0.0.0.0", "::", "127.0.0.1"] {
            assert!(names(&[], listens).is_empty(), "{listens}");
        }
    }

    #[test]
    fn the_certificate_holds_the_address_at_which_operators_connect() {
        let names = |admin: &str| certified_names(vec!["owl.example".to_owned()], admin.parse().unwrap());
        assert_eq!(names("192.0.2.9"), ["owl.example", "192.0.2.9"]);
        assert_eq!(names("0.0.0.0"), ["owl.example"]);
    }
}
