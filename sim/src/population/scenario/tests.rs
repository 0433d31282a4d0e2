use super::*;

const SAMPLE: &str = include_str!("../../../scenarios/population.toml");

#[test]
fn the_sample_has_every_key_at_its_default() {
    assert_eq!(Scenario::parse(SAMPLE).unwrap(), Scenario::default());
    assert_eq!(Scenario::parse("").unwrap(), Scenario::default());
    let keys = |table: &toml::Table| -> Vec<String> {
        table
            .iter()
            .flat_map(|(name, value)| match value.as_table() {
                Some(table) => table.keys().map(|key| format!("{name}.{key}")).collect(),
                None => vec![name.clone()],
            })
            .collect()
    };
    // Those that have no default stand in it behind a mark of a comment.
    let whole: String = SAMPLE
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if rest.split(' ').nth(1) == Some("=") => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let mut full = Scenario::default();
    full.population.devices = Some(10_000);
    full.presence.trace = Some("trace.csv".into());
    full.task.learning_rate = Some(0.1);
    full.model.base = Some("base".into());
    full.model.data = Some("users".into());
    full.model.alpha = Some(4.0);
    full.task.report_goal = Some(67);
    full.task.min_rounds = Some(1);
    assert_eq!(toml::from_str::<Scenario>(&whole).unwrap(), full);
    assert_eq!(keys(&whole.parse().unwrap()), keys(&toml::Table::try_from(&full).unwrap()));
}

#[test]
fn unknown_keys_and_values_out_of_range_are_refused_by_name() {
    let refused = |text: &str| Scenario::parse(text).unwrap_err().to_string();
    assert!(refused("[task]\ncohorts = 3").contains("unknown key task.cohorts"));
    assert!(refused("speed = 3").contains("unknown key speed"));
    for (text, words) in [
        ("population.devices = 2", "population.devices is 2, expected 3 to 1000000"),
        ("population.training_secs = 0.0", "population.training_secs is 0"),
        ("population.examples = nan", "population.examples is NaN"),
        ("network.spread = -0.5", "network.spread is -0.5, expected 0 to 3"),
        ("presence.zones = []", "presence.zones is []"),
        ("presence.zones = [15.0]", "presence.zones is [15.0]"),
        ("presence.days = 0.0", "presence.days is 0"),
        ("presence.model = \"trace\"", "presence.trace is left out"),
        ("presence.trace = \"x.csv\"", "presence.trace has no effect with presence.model = \"always\""),
        ("task.learning_rate = 1.5", "task.learning_rate is 1.5"),
        ("task.rounds = 129", "task.rounds is 129, expected 1 to 128"),
        ("task.rounds = 2\ntask.min_rounds = 3", "task.min_rounds is 3, expected 1 to task.rounds"),
        ("task.versions = 0", "task.versions is 0, expected 1 to 10000"),
        ("task.cohort = 0", "task.cohort is 0, expected at least 2"),
        ("task.report_goal = 1", "task.report_goal is 1, expected at least 2"),
        ("task.coordinates = 0", "task.coordinates is 0, expected 1 to 16777216"),
        ("task.coordinates = 16777217", "task.coordinates is 16777217, expected 1 to"),
        ("task.join_secs = 604801", "task.join_secs is 604801, expected 1 to 604800, a week"),
        ("task.step_secs = 0", "task.step_secs is 0, expected 1 to 604800"),
        ("task.grace_secs = 1000000", "task.grace_secs is 1000000, expected 0 to 604800"),
        (
            "privacy.noise_multiplier = 0.0",
            "privacy.noise_multiplier is 0, expected above 0, up to 100000; without",
        ),
        ("privacy.noise_multiplier = inf", "privacy.noise_multiplier is inf, expected above 0"),
        ("privacy.clip_norm = 1e300", "privacy.clip_norm is 1e300, expected above 0, up to 1e30"),
        ("privacy.clip_norm = 0.0", "privacy.clip_norm is 0e0, expected above 0"),
        ("privacy.delta = 0.0", "privacy.delta is 0, expected above 0 and below 1"),
        ("privacy.corrupt_permille = 500", "privacy.corrupt_permille is 500, expected 0 to 499"),
        ("privacy.participations = 0", "privacy.participations is 0, expected 1 to 100000"),
        ("task.objective = \"engine\"", "model.base is left out, expected a base with task.objective"),
        ("model.rank = 4", "model.rank has no effect with a task.objective other than \"engine\""),
        (
            "task.objective = \"engine\"\ntask.coordinates = 9",
            "task.coordinates has no effect with task.objective = \"engine\"; leave it out",
        ),
        ("task.patience_hours = 0", "task.patience_hours is 0, expected 1 to 960"),
        ("privacy.mode = \"off\"", "privacy.noise_multiplier is 1, expected 0 with privacy.mode = \"off\""),
        ("faults.lost_permille = 1000", "faults.lost_permille is 1000, expected 0 to 999"),
    ] {
        assert!(refused(text).starts_with(words), "{text}: {}", refused(text));
    }
}

#[test]
fn what_is_wrong_with_a_file_is_said_in_one_line() {
    let refused = |text: &str| Scenario::parse(text).unwrap_err().to_string();
    assert_eq!(
        refused("[task]\ncohort = \"x\""),
        "invalid type: string \"x\", expected u32 in `task.cohort`"
    );
    let said = refused("[task]\ncohort = = 3");
    assert!(said.starts_with("TOML parse error at line 2, column 10: ") && !said.contains('\n'), "{said}");
}
