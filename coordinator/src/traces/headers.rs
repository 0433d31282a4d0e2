//! The file with headers by which a collector knows who sends. What it holds is never shown.

use std::path::Path;

use http::HeaderMap;
use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, HeaderValue, TRANSFER_ENCODING,
};
use proto::files;
use zeroize::Zeroizing;

/// The most bytes of the file.
const MOST_BYTES: usize = 16 << 10;

/// The most headers.
const MOST: usize = 16;

/// Those that a request has anyway.
const OURS: [HeaderName; 5] = [CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING];

/// The headers of a file. Fails with why, which names a line by its number and says nothing of what it holds.
pub(super) fn read(path: &Path) -> Result<HeaderMap, String> {
    let bytes = Zeroizing::new(files::read_secret(path).map_err(|error| error.to_string())?);
    if bytes.len() > MOST_BYTES {
        return Err(format!("it has {} bytes, and may have {MOST_BYTES}", bytes.len()));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| "it is no text".to_owned())?;
    let mut headers = HeaderMap::new();
    for (line, number) in text.lines().map(str::trim).zip(1_u32..) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let malformed = || format!("line {number} is not of the form `Name: value`");
        let (name, value) = line.split_once(':').ok_or_else(malformed)?;
        let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| malformed())?;
        if OURS.contains(&name) {
            return Err(format!("line {number} gives `{name}`, which every request has already"));
        }
        let mut value = HeaderValue::from_str(value.trim()).map_err(|_| malformed())?;
        value.set_sensitive(true);
        if headers.insert(name, value).is_some() {
            return Err(format!("line {number} gives a header that an earlier line gave"));
        }
    }
    match headers.len() {
        0 => Err("it holds no header: write `Name: value` on a line".to_owned()),
        1..=MOST => Ok(headers),
        more => Err(format!("it holds {more} headers, and may hold {MOST}")),
    }
}

#[cfg(test)]
mod tests {
    use proto::files::Audience;

    use super::*;

    fn of(text: &str) -> Result<HeaderMap, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("headers");
        files::write(&path, text.as_bytes(), Audience::Owner).unwrap();
        read(&path)
    }

    #[test]
    fn lines_are_headers_and_what_they_hold_is_not_shown() {
        let headers = of("# for the collector\nAuthorization: Bearer geheim\n\nx-scope:  a:b \n").unwrap();
        assert_eq!(headers["authorization"], "Bearer geheim");
        assert_eq!(headers["x-scope"], "a:b");
        assert!(!format!("{headers:?}").contains("geheim"), "{headers:?}");
    }

    #[test]
    fn what_is_no_header_is_named_by_its_line_and_not_shown() {
        for (text, said) in [
            ("", "it holds no header"),
            ("# nothing\n", "it holds no header"),
            ("ok: 1\ngeheim", "line 2 is not of the form"),
            ("ge heim: 1", "line 1 is not of the form"),
            ("x: ge\u{1}heim", "line 1 is not of the form"),
            ("Host: geheim", "line 1 gives `host`"),
            ("content-type: geheim", "line 1 gives `content-type`"),
            ("x: 1\nX: geheim", "line 2 gives a header that an earlier line gave"),
        ] {
            let found = of(text).unwrap_err();
            assert!(found.contains(said), "{text}\n{found}");
            assert!(!found.contains("geheim"), "{found}");
        }
        assert!(of(&"x: 1\n".repeat(5_000)).unwrap_err().contains("may have 16384"));
        let many: Vec<String> = (0..17).map(|i| format!("x-{i}: 1")).collect();
        assert!(of(&many.join("\n")).unwrap_err().contains("it holds 17 headers"));
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("headers");
        files::write(&path, b"x: 1", Audience::Anyone).unwrap();
        read(&path).unwrap_err();
    }
}
