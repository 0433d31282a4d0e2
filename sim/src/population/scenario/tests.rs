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
