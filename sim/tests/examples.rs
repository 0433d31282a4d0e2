//! The example does what it says.

#[path = "../examples/scenario.rs"]
#[expect(dead_code, unreachable_pub, reason = "a program, which is a module here")]
mod scenario;

#[test]
fn eight_devices_learn_in_two_versions_and_the_same_seed_says_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let run = |seed| scenario::eight_devices(folder.path(), seed).unwrap().summary;
    let first = run(1);
    assert_eq!((first.versions.len(), first.devices), (2, 8));
    assert!(first.final_loss < first.base_loss, "{} after {}", first.final_loss, first.base_loss);
    assert_eq!(run(1).final_loss.to_bits(), first.final_loss.to_bits());
    assert_ne!(run(2).final_loss.to_bits(), first.final_loss.to_bits());
}
