//! The examples that need no coordinator do what they say; those that need one run in `tests/tests/door.rs`.

use std::path::Path;

#[path = "../examples/train_alone.rs"]
#[expect(dead_code, unreachable_pub, reason = "a program, which is a module here")]
mod train_alone;

#[test]
fn an_adapter_that_is_trained_alone_knows_held_out_text_better() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text.txt");
    let line = |i: usize| format!("w{} w{} w{} w{}\n\n", i % 20 + 3, i % 20 + 4, i % 20 + 5, i % 20 + 6);
    std::fs::write(&text, (0..400).map(line).collect::<Vec<_>>().concat()).unwrap();
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("engine/tests/reference/base");
    let learned = train_alone::train(&base, text, 30).unwrap();
    assert!(learned.after.nats_per_token < learned.before.nats_per_token, "{:?}", learned.after);
}
