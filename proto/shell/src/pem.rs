//! Certificates and requests as text (RFC 7468).

use pem::{EncodeConfig, LineEnding, Pem};

/// Bytes (DER) as PEM with a label such as `CERTIFICATE`: lines of 64 characters that end in a line feed on every system.
pub fn encode(label: &str, der: &[u8]) -> String {
    pem::encode_config(&Pem::new(label, der), EncodeConfig::new().set_line_ending(LineEnding::LF))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_sixty_four_characters_and_the_last_what_is_left() {
        let (line, rest) = ("AAAA".repeat(16), "AAA=");
        let expected = |body: &str| format!("-----BEGIN CERTIFICATE-----\n{body}-----END CERTIFICATE-----\n");
        assert_eq!(encode("CERTIFICATE", &[0; 2]), expected(&format!("{rest}\n")));
        assert_eq!(encode("CERTIFICATE", &[0; 48]), expected(&format!("{line}\n")));
        assert_eq!(encode("CERTIFICATE", &[0; 98]), expected(&format!("{line}\n{line}\n{rest}\n")));
    }
}
