//! Plans: what cannot be followed is refused with the value's name.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use nightshift_proto::adapter::{Method, Module};
use nightshift_proto::ids::{Digest, TaskId};
use nightshift_proto::message::Published;
use nightshift_proto::metrics::{Metric, MetricName};
use nightshift_proto::plan::{
    AdaptiveClipPlan, ClassPlan, MAX_FOLDED_RANK, MAX_RANK, MAX_ROUND_MILLIS, MAX_VERSIONS, Mode, Plan,
    RefreshPlan, model_digest,
};
use nightshift_proto::training::{
    MAX_ASSIGNMENT_TOKENS, MAX_BATCH_SIZE, MAX_LOCAL_STEPS, MAX_SEQUENCE_LEN, MAX_STEP_TOKENS,
};

fn plan() -> Plan {
    Plan::example()
}

fn refused(change: impl FnOnce(&mut Plan)) -> String {
    let mut plan = plan();
    change(&mut plan);
    Plan::parse(&plan.to_bytes().unwrap()).unwrap_err().to_string()
}

#[test]
fn a_plan_reads_back_from_its_bytes() {
    assert_eq!(Plan::parse(&plan().to_bytes().unwrap()).unwrap(), plan());
}

#[test]
fn an_unknown_key_is_refused_by_name() {
    let text = String::from_utf8(plan().to_bytes().unwrap()).unwrap();
    let error = Plan::parse(text.replace("\"name\"", "\"nam\"").as_bytes()).unwrap_err().to_string();
    assert!(error.contains("unknown field `nam`"), "{error}");
}

#[test]
fn values_that_cannot_be_used_are_named() {
    let error = refused(|plan| plan.training.learning_rate = -1.0);
    assert_eq!(error, "learning_rate must be a number above 0, found -1");
    let error = refused(|plan| plan.round.versions = 0);
    assert_eq!(error, "versions must be at least 1, found 0");
    let error = refused(|plan| plan.privacy.epsilon_budget = Some(0.0));
    assert_eq!(error, "epsilon_budget must be a number above 0, found 0");
    let error = refused(|plan| plan.adapter.rank = 9);
    assert_eq!(error, "rank 9 does not fit `m` (64 × 8); use 1 to 8");
    let error = refused(|plan| {
        let huge = Module { name: "m".into(), inputs: u32::MAX, outputs: u32::MAX };
        (plan.adapter.rank, plan.adapter.modules) = (u32::MAX, vec![huge; 3]);
    });
    assert!(error.contains("parameters; at most 16777216 fit a round"), "{error}");
    let error = refused(|plan| plan.adapter.modules[0].inputs = u32::MAX);
    assert!(error.contains("freezes") && error.contains("at most 268435456"), "{error}");
    assert!(refused(|plan| plan.privacy.delta = 1.0).contains('1'));
    assert!(refused(|plan| plan.privacy.clip_norm = 0.0).contains('0'));
    assert!(refused(|plan| plan.privacy.noise_multiplier = -2.0).contains("-2"));
    assert!(refused(|plan| plan.round.cohort = 1025).contains("1025"));
    assert!(refused(|plan| plan.round.missing_permille = 1000).contains("missing_permille"));
    assert!(refused(|plan| plan.privacy.corrupt_permille = 500).contains("corrupt_permille"));
    let error = refused(|plan| {
        (plan.round.cohort, plan.round.report_goal) = (300, 299);
        (plan.round.missing_permille, plan.privacy.corrupt_permille) = (600, 300);
    });
    assert!(error.contains("300 thousandths") && error.contains("600 may vanish"), "{error}");
}

#[test]
fn no_plan_asks_for_more_than_anybody_needs() {
    type Change = fn(&mut Plan, u64);
    let most = |value: u32| u64::from(value);
    let set = |to: &mut u32, value: u64| *to = u32::try_from(value).unwrap();
    let bounds: [(&str, u64, Change); 8] = [
        ("local_steps", most(MAX_LOCAL_STEPS), |plan, x| plan.training.local_steps = x.try_into().unwrap()),
        ("batch_size", most(MAX_BATCH_SIZE), |plan, x| plan.training.batch_size = x.try_into().unwrap()),
        ("warmup_steps", most(MAX_LOCAL_STEPS), |plan, x| plan.training.warmup_steps = x.try_into().unwrap()),
        ("versions", most(MAX_VERSIONS), |plan, x| plan.round.versions = x.try_into().unwrap()),
        ("participations", most(MAX_VERSIONS), |plan, x| plan.privacy.participations = x.try_into().unwrap()),
        ("join_millis", MAX_ROUND_MILLIS, |plan, x| plan.round.join_millis = x),
        ("step_millis", MAX_ROUND_MILLIS, |plan, x| plan.round.step_millis = x),
        ("grace_millis", MAX_ROUND_MILLIS, |plan, x| plan.round.grace_millis = x),
    ];
    for (name, most, change) in bounds {
        let mut allowed = plan();
        change(&mut allowed, most);
        allowed.check().unwrap();
        let error = refused(|plan| change(plan, most + 1));
        assert!(error.starts_with(&format!("{name} must be at most {most}")), "{error}");
        assert!(error.ends_with(&format!("found {}", most + 1)), "{error}");
    }
    let error = refused(|plan| set(&mut plan.training.sequence_len, most(MAX_SEQUENCE_LEN) + 1));
    assert!(error.contains(&MAX_SEQUENCE_LEN.to_string()), "{error}");
    // A billion sequences in a step, or a billion steps, or both factors at their bound, are no plan.
    let error = refused(|plan| plan.training.batch_size = 1_000_000_000);
    assert_eq!(error, "batch_size must be at most 16384, found 1000000000");
    let error = refused(|plan| {
        (plan.training.batch_size, plan.training.sequence_len) = (MAX_BATCH_SIZE, 512);
    });
    assert!(error.contains(&format!("at most {MAX_STEP_TOKENS} tokens, found 8388608")), "{error}");
    let error = refused(|plan| {
        (plan.training.local_steps, plan.training.batch_size) = (MAX_LOCAL_STEPS, 1251);
    });
    assert!(error.contains(&format!("at most {MAX_ASSIGNMENT_TOKENS} tokens, found 1000800000")), "{error}");
    let wide = |plan: &mut Plan, rank| {
        plan.adapter.modules = vec![Module { name: "m".into(), inputs: 4096, outputs: 4096 }];
        plan.adapter.rank = rank;
        plan.refresh = Some(RefreshPlan { every: 1, accumulated_rank: 4 * rank, shipped_rank: 4 * rank });
    };
    let error = refused(|plan| wide(plan, MAX_RANK + 1));
    assert!(error.contains(&format!("adapter.rank must be at most {MAX_RANK}, found 513")), "{error}");
    let error = refused(|plan| {
        wide(plan, MAX_RANK);
        plan.refresh.as_mut().unwrap().accumulated_rank = MAX_FOLDED_RANK + 1;
    });
    assert!(error.contains(&format!("accumulated_rank must be at most {MAX_FOLDED_RANK}")), "{error}");
    let error = refused(|plan| {
        wide(plan, MAX_RANK);
        plan.refresh.as_mut().unwrap().shipped_rank = MAX_FOLDED_RANK + 1;
    });
    assert!(error.contains(&format!("shipped_rank must be at most {MAX_FOLDED_RANK}")), "{error}");
}

#[test]
fn a_report_goal_below_the_quorum_is_refused_with_both() {
    let error = refused(|plan| plan.round.report_goal = 6);
    assert_eq!(
        error,
        "a report goal of 6 in a cohort of 12 is below the quorum of 7 without which no device opens a sum; raise it or \
         lower the cohort"
    );
}

#[test]
fn a_report_goal_above_the_cohort_is_refused() {
    assert!(refused(|plan| plan.round.report_goal = 13).contains("13"));
}

#[test]
fn metrics_that_cannot_be_summed_are_refused() {
    let loss = |most| Metric { name: MetricName::Loss, most };
    assert!(refused(|plan| plan.privacy.metrics = vec![loss(0.0)]).contains("most must be"));
    let words = refused(|plan| plan.privacy.metrics = vec![loss(1.0), loss(2.0)]);
    assert_eq!(words, "the plan asks for the metric `loss` twice");
    let words = refused(|plan| {
        plan.privacy.metrics = vec![loss(1.0)];
        plan.privacy.metrics_weight = 2.0;
    });
    assert!(words.contains("got 2"), "{words}");
}

fn adapting() -> Plan {
    let mut plan = plan();
    plan.privacy.metrics = vec![Metric { name: MetricName::Clipped, most: 1.0 }];
    plan.privacy.adaptive_clip = Some(AdaptiveClipPlan { quantile: 0.5, rate: 0.2, least: 0.1, most: 10.0 });
    plan
}

#[test]
fn a_clip_norm_that_adapts_says_how_far_and_asks_who_was_clipped() {
    adapting().check().unwrap();
    let refused = |change: fn(&mut Plan)| {
        let mut plan = adapting();
        change(&mut plan);
        plan.check().unwrap_err().to_string()
    };
    assert!(refused(|plan| plan.privacy.metrics.clear()).contains("`clipped`"));
    assert!(refused(|plan| plan.privacy.clip_norm = 11.0).contains("11"));
    let words = refused(|plan| {
        plan.privacy.adaptive_clip =
            Some(AdaptiveClipPlan { quantile: 1.5, rate: 0.2, least: 0.1, most: 10.0 });
    });
    assert!(words.contains("1.5"), "{words}");
}

#[test]
fn a_version_s_clip_norm_is_one_that_the_plan_allows() {
    assert!(plan().mechanism_at(0, 1.0).is_ok());
    for clip_norm in [1.1, 0.0, f64::NAN] {
        assert!(plan().mechanism_at(0, clip_norm).is_err());
    }
    let cost = adapting().mechanism().unwrap().curve();
    assert_eq!(adapting().mechanism_at(0, 7.0).unwrap().curve(), cost);
    let words = adapting().mechanism_at(0, 10.1).unwrap_err().to_string();
    assert_eq!(words, "a clip norm of 10.1 is not one that the plan allows");
}

#[test]
fn classes_need_noise_of_the_devices_own_and_a_frozen_a() {
    let classes = |least_trainers| Some(ClassPlan { least_trainers });
    let mut good = plan();
    good.classes = classes(10);
    good.check().unwrap();
    for least in [0, 1, 11] {
        let words = refused(|plan| plan.classes = classes(least));
        let expected = format!("classes.least_trainers must be 2 up to the report goal, found {least}");
        assert_eq!(words, expected);
    }
    assert!(refused(|plan| (plan.classes, plan.privacy.mode) = (classes(2), Mode::Off)).contains("frozen_a"));
    assert!(
        refused(|plan| (plan.classes, plan.adapter.method) = (classes(2), Method::Core)).contains("classes")
    );
}

#[test]
fn epochs_that_cannot_be_are_refused_by_name() {
    let refresh = |every, accumulated_rank, shipped_rank| {
        refused(|plan| plan.refresh = Some(RefreshPlan { every, accumulated_rank, shipped_rank }))
    };
    assert!(refresh(0, 4, 4).starts_with("refresh.every must be at least 1"));
    assert_eq!(refresh(3, 0, 4), "refresh.accumulated_rank must be at least the adapter's rank, found 0");
    let words = refresh(3, 4, 9);
    assert_eq!(
        words,
        "refresh.shipped_rank must be 1 up to the smallest side of the adapted layers, found 9"
    );
    assert!(refresh(3, 1 << 24, 4).contains("freezes"));
    for method in [Method::Both, Method::Alternate] {
        let words = refused(|plan| {
            plan.refresh = Some(RefreshPlan { every: 3, accumulated_rank: 4, shipped_rank: 4 });
            plan.adapter.method = method;
        });
        assert!(words.contains("method freezes none"), "{words}");
    }
}

#[test]
fn epochs_end_with_their_last_version_but_none_with_the_task_s() {
    let mut plan = plan();
    plan.round.versions = 6;
    let epochs = |plan: &Plan| (0..=6).map(|version| plan.epoch(version)).collect::<Vec<_>>();
    assert_eq!(epochs(&plan), [0; 7]);
    plan.refresh = Some(RefreshPlan { every: 2, accumulated_rank: 4, shipped_rank: 4 });
    assert_eq!(epochs(&plan), [0, 0, 1, 1, 2, 2, 2]);
    assert_eq!((0..=6).filter(|version| plan.folds_at(*version)).collect::<Vec<_>>(), [2, 4]);
    let factors = |version| plan.factors_at(version, None).unwrap();
    assert_eq!(factors(0), factors(1));
    assert_ne!(factors(1), factors(2));
    assert!(plan.folded_at(1, Some(&[0.0; 72])).is_err());
    assert!(plan.folded_at(2, None).is_err());
    assert!(plan.folded_at(2, Some(&[0.0; 72])).is_ok());
}

#[test]
fn a_plan_from_before_there_were_epochs_has_none() {
    let text = String::from_utf8(plan().to_bytes().unwrap()).unwrap();
    let without = text.replace("  \"refresh\": null,\n", "");
    assert_ne!(text, without);
    assert_eq!(Plan::parse(without.as_bytes()).unwrap(), plan());
}

#[test]
fn a_half_costs_no_more_than_the_plan_says() {
    let mut plan = plan();
    plan.adapter.method = Method::Alternate;
    plan.adapter.modules = vec![Module { name: "m".into(), inputs: 40, outputs: 4000 }];
    let plan = plan.with_recommended_scale().unwrap();
    plan.check().unwrap();
    let cost = plan.mechanism().unwrap();
    for version in [0, 1] {
        let half = plan.mechanism_at(version, 1.0).unwrap();
        assert_eq!(half.params().coordinates, plan.adapter.update_len(version));
        for order in [1.5, 2.0, 8.0, 64.0] {
            assert!(half.rdp(order) <= cost.rdp(order), "version {version}, order {order}");
        }
    }
}

#[test]
fn a_version_is_known_by_its_number_and_by_what_earlier_epochs_left() {
    let published = Published {
        task: TaskId([1; 16]),
        version: 1,
        plan: Digest([2; 32]),
        adapter: Digest([3; 32]),
        folded: None,
        clip_norm: 1.0,
    };
    let known = |published| model_digest(&plan(), &published, None);
    let others = [
        Published { version: 2, ..published },
        Published { folded: Some(Digest([4; 32])), ..published },
        Published { folded: Some(Digest([5; 32])), ..published },
    ];
    let names = [known(published), known(others[0]), known(others[1]), known(others[2])];
    assert!((0..4).all(|i| (0..i).all(|j| names[i] != names[j])));
}

#[test]
fn a_version_is_known_by_its_clip_norm_too() {
    let published = Published {
        task: TaskId([1; 16]),
        version: 1,
        plan: Digest([2; 32]),
        adapter: Digest([3; 32]),
        folded: None,
        clip_norm: 1.0,
    };
    let other = Published { clip_norm: 2.0, ..published };
    assert_ne!(model_digest(&plan(), &published, None), model_digest(&plan(), &other, None));
}

#[test]
fn noise_and_protocol_reckon_with_the_same_number_of_corrupt_devices_for_every_pair() {
    let mut plan = Plan::example();
    for cohort in 1..=1024_u32 {
        for permille in 0..500_u16 {
            (plan.round.cohort, plan.round.report_goal) = (cohort, cohort);
            plan.privacy.corrupt_permille = permille;
            let corrupt = plan.corrupt_devices();
            // ⌊γN⌋, by whole numbers alone.
            let (product, cohort) = (u64::from(cohort) * u64::from(permille), u64::from(cohort));
            assert!(1000 * corrupt as u64 <= product && product < 1000 * (corrupt as u64 + 1));
            let params = plan.mechanism_params().unwrap();
            assert_eq!((params.corrupt, params.cohort as u64), (corrupt, cohort), "{cohort} {permille}");
        }
    }
}

#[test]
fn noise_is_sized_for_no_honest_device_too_many() {
    // Pairs for which a product of f64 falls just short of the whole number that γN is.
    for (permille, cohort, corrupt) in [(72, 375, 27), (36, 750, 27), (290, 100, 29), (145, 200, 29)] {
        assert_eq!(aggregation::corrupt_devices(cohort, permille), corrupt);
        let mut plan = Plan::example();
        let size = u32::try_from(cohort).unwrap();
        (plan.round.cohort, plan.round.report_goal) = (size, size);
        plan.privacy.corrupt_permille = permille;
        let plan = plan.with_recommended_scale().unwrap();
        let mechanism = plan.mechanism().unwrap();
        let all = mechanism.device_variance() * (cohort - corrupt) as f64;
        let z = plan.privacy.noise_multiplier * plan.privacy.clip_norm * plan.privacy.scale;
        let growth =
            1.0 + plan.privacy.metrics_weight.powi(2) * f64::from(u8::from(!plan.privacy.metrics.is_empty()));
        assert!(
            all >= z * z * growth * (1.0 - 1e-12),
            "{cohort} {permille}: {all} is below {}",
            z * z * growth
        );
    }
}
