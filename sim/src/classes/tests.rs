use proto::adapter::{Factors, Module};
use proto::plan::ClassPlan;

use super::*;

fn spec() -> AdapterSpec {
    let module = |layer| Module { name: format!("layers.{layer}.q"), inputs: 4, outputs: 2 };
    AdapterSpec {
        method: Method::FrozenA,
        rank: 3,
        alpha: 3.0,
        factors: Factors::Seeded(Digest([1; 32])),
        modules: vec![module(0), module(1)],
    }
}

fn shares(of: &[&str]) -> Vec<ClassShare> {
    of.iter().map(|text| text.parse().unwrap()).collect()
}

fn dealt(of: &[&str], devices: usize, seed: u8) -> Result<Vec<Class>, ClassError> {
    deal(&shares(of), (&spec(), Mode::Distributed), devices, &Digest([seed; 32]))
}

fn refused(of: &[&str]) -> String {
    dealt(of, 8, 1).unwrap_err().to_string()
}

#[test]
fn a_class_is_read_and_written_back_and_words_that_are_none_are_named() {
    for text in ["0.5:2:3", "0.25:4", "1:1:1"] {
        assert_eq!(shares(&[text])[0].to_string(), text);
    }
    for text in ["", "0.5", "0.5:2:3:4", "half:2", "0.5:-2", "0.5:2:", "0.5:two"] {
        let words = text.parse::<ClassShare>().unwrap_err().to_string();
        assert!(words.contains(&format!("`{text}`")) && words.contains("0.5:2:3"), "{words}");
    }
    for text in ["0:2", "-0.1:2", "1.1:2", "NaN:2", "inf:2"] {
        let words = text.parse::<ClassShare>().unwrap_err().to_string();
        assert!(words.contains("above 0 and at most 1"), "{text}: {words}");
    }
}

#[test]
fn as_many_devices_are_of_a_class_as_its_share_says_and_the_seed_says_which() {
    let (weak, weaker, whole) =
        (Class { rank: 2, layers: 1 }, Class { rank: 1, layers: 2 }, Class { rank: 3, layers: 2 });
    let count = |dealt: &[Class], class| dealt.iter().filter(|found| **found == class).count();
    let first = dealt(&["0.5:2:1", "0.25:1"], 16, 1).unwrap();
    assert_eq!([weak, weaker, whole].map(|class| count(&first, class)), [8, 4, 4]);
    assert_eq!(dealt(&["0.5:2:1", "0.25:1"], 16, 1).unwrap(), first);
    let second = dealt(&["0.5:2:1", "0.25:1"], 16, 2).unwrap();
    assert_eq!([weak, weaker, whole].map(|class| count(&second, class)), [8, 4, 4]);
    assert_ne!(first, second);
    // Thirds are not 1 exactly when they are added up.
    let thirds = dealt(&["0.3333333333:2:1", "0.3333333333:1", "0.3333333334:3"], 3, 1).unwrap();
    assert_eq!([weak, weaker, whole].map(|class| count(&thirds, class)), [1, 1, 1]);
    let tenths = dealt(&["0.1:1"; 10], 10, 1).unwrap();
    assert_eq!(count(&tenths, weaker), 10);
    assert_eq!(dealt(&[], 3, 1).unwrap(), [whole; 3]);
}

#[test]
fn the_limits_of_a_device_make_its_class() {
    for class in dealt(&["0.5:2:1", "0.25:1"], 8, 1).unwrap() {
        let found = policy(class, &Policy::default()).class(&spec());
        assert_eq!(found.unwrap_or(Class::whole(&spec())), class);
    }
}

#[test]
fn classes_that_cannot_be_are_refused_with_their_values() {
    assert!(refused(&["0.75:2", "0.5:1"]).contains("add up to 1.25"));
    for (share, words) in [
        ("0.5:0", "rank 0 in 2 layers"),
        ("0.5:4", "rank 4 in 2 layers; the adapter has rank 1 to 3 and 1 to 2 layers"),
        ("0.5:2:0", "rank 2 in 0 layers"),
        ("0.5:2:3", "rank 2 in 3 layers"),
    ] {
        let refused = refused(&[share]);
        assert!(refused.contains(&format!("--class {share} ")) && refused.contains(words), "{refused}");
    }
    assert!(refused(&["0.5:2", "0.01:1"]).contains("--class 0.01:1 is not one of 8 devices"));
    let (spec, both) = (spec(), AdapterSpec { method: Method::Both, ..spec() });
    for (spec, mode, words) in [
        (&spec, Mode::Off, "found frozen_a and off"),
        (&spec, Mode::Central, "found frozen_a and central"),
        (&both, Mode::Distributed, "found both and distributed"),
    ] {
        let refused = deal(&shares(&["0.5:2"]), (spec, mode), 8, &Digest([1; 32])).unwrap_err();
        assert!(refused.to_string().contains(words), "{refused}");
    }
}

#[test]
fn what_few_or_nobody_train_is_said() {
    let mut plan = Plan { adapter: spec(), ..Plan::example() };
    let few = dealt(&["0.5:2", "0.5:1"], 8, 1).unwrap();
    assert!(remarks(&plan, &few).is_empty());
    plan.classes = Some(ClassPlan { least_trainers: 2 });
    let words = remarks(&plan, &few);
    // The third column of two outputs in two layers; the second is that of four devices of eight.
    assert!(words[0].starts_with("4 of the adapter's 12 trained numbers never move"), "{words:?}");
    assert!(words[1].starts_with("what only 4 of 8 devices train") && words[1].contains("2.0 times"));
    assert!(remarks(&plan, &dealt(&[], 8, 1).unwrap()).is_empty());
}
