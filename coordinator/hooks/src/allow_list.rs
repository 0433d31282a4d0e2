//! A file of keys that may come, a line each: `identity HEX` is a device's identity key, `tpm HEX` the fingerprint of a key
//! with which a TPM signs. What follows a `#` is a remark.
//!
//! It is read each time that somebody asks, so what is in it now is what counts.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use proto::files;
use proto::ids::Digest;

use crate::failure::HookError;

/// The most bytes of such a file: some hundred thousand keys.
const MOST_BYTES: u64 = 16 << 20;

/// The file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AllowList(pub(crate) PathBuf);

/// What is in it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) identities: BTreeSet<Digest>,
    pub(crate) tpms: BTreeSet<Digest>,
}

impl AllowList {
    /// What is in it now. Fails where it cannot be read, or a line is none: what was meant by it might be that somebody does
    /// not come. Blocks.
    pub(crate) fn read(&self) -> Result<Listed, HookError> {
        let read = files::read_regular(&self.0, MOST_BYTES).map_err(|error| error.to_string());
        let parsed = read.and_then(|bytes| parse(&bytes));
        parsed.map_err(|why| HookError::Failed {
            why: format!("{} cannot be used: {why}", self.path().display()),
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

fn parse(bytes: &[u8]) -> Result<Listed, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is no text in UTF-8".to_owned())?;
    let mut listed = Listed::default();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace();
        let key = match (words.next(), words.next().map(str::parse), words.next()) {
            (None, _, _) => continue,
            (Some("identity"), Some(Ok(key)), None) => listed.identities.insert(key),
            (Some("tpm"), Some(Ok(key)), None) => listed.tpms.insert(key),
            (Some(_), _, _) => {
                return Err(format!(
                    "line {number} is neither `identity` nor `tpm` and 64 hexadecimal digits"
                ));
            }
        };
        // Listed twice is listed.
        let _: bool = key;
    }
    Ok(listed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_keys_of_both_kinds_and_remarks() {
        let (one, other) = (Digest([0xab; 32]), Digest([2; 32]));
        let text = format!("# who may come\n\nidentity {one}\n  tpm {other}   # the attic\nidentity {one}\n");
        let listed = parse(text.as_bytes()).unwrap();
        assert_eq!((listed.identities, listed.tpms), (BTreeSet::from([one]), BTreeSet::from([other])));
        assert_eq!(parse(b"").unwrap(), Listed::default());
    }

    #[test]
    fn a_line_that_is_none_is_named_and_nothing_is_taken() {
        let key = Digest([1; 32]);
        for line in
            ["identity", "identity 00", "ek 00", &format!("tpm {key} {key}"), &key.to_string(), "\u{feff}tpm"]
        {
            let text = format!("identity {key}\n{line}\n");
            let said = parse(text.as_bytes()).unwrap_err();
            assert!(said.starts_with("line 2 is neither"), "{line}: {said}");
        }
        assert!(parse(b"\xff").unwrap_err().contains("UTF-8"));
        let absent = AllowList("/nonexistent/list".into()).read().unwrap_err();
        assert_eq!(absent.word(), "failed");
        assert!(absent.to_string().contains("/nonexistent/list"), "{absent}");
    }

    #[test]
    fn what_the_file_holds_now_counts() {
        let folder = tempfile::tempdir().unwrap();
        let list = AllowList(folder.path().join("list"));
        let key = Digest([1; 32]);
        std::fs::write(list.path(), format!("identity {key}\n")).unwrap();
        assert!(list.read().unwrap().identities.contains(&key));
        std::fs::write(list.path(), "# nobody\n").unwrap();
        assert_eq!(list.read().unwrap(), Listed::default());
    }
}
