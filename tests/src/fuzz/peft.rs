//! A PEFT folder of anybody's.

use formats::{peft_files, read_peft};

use super::tape::Tape;

/// The config of the seeds.
const CONFIG: &str = r#"{"peft_type": "LORA", "r": 1, "lora_alpha": 2}"#;

/// A configuration and tensors. What is read as an adapter is one, and comes back the same from the folder that is
/// written of it.
pub fn peft_folder(bytes: &[u8]) {
    let mut tape = Tape::new(bytes);
    let config = tape.part();
    let config = if config.is_empty() { CONFIG.as_bytes() } else { config };
    let Ok((spec, trained)) = read_peft(config, tape.rest()) else { return };
    spec.check().unwrap();
    spec.check_trained(&trained).unwrap();
    let files = peft_files(&spec, &[], &trained, "base").unwrap();
    let (again, numbers) = read_peft(&files[0].1, &files[1].1).unwrap();
    assert_eq!(again, spec);
    assert!(numbers.iter().zip(&trained).all(|(x, y)| x.to_bits() == y.to_bits()));
}
