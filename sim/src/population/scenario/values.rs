//! Which values a scenario may have.

use proto::plan::{MAX_COORDINATES, MAX_ROUND_MILLIS, MAX_ROUNDS, MAX_VERSIONS, Mode};

use super::{MOST_DEVICES, ObjectiveName, PresenceModel, Scenario, ScenarioError};

const BASE: &str = "a base with task.objective = \"engine\", here or by --base";
const DATA: &str = "a folder with text for each device with task.objective = \"engine\", here or by --data";

/// Noise beyond which no sum fits its ring, about.
const MOST_NOISE: f64 = 1e5;

/// What fits numbers of single precision, with room for sums of them.
const MOST_CLIP: f64 = 1e30;

impl Scenario {
    /// Fails where a value is out of range, or has no effect.
    pub fn check(&self) -> Result<(), ScenarioError> {
        let bad = |key, found: String, wanted| Err(ScenarioError::Value { key, found, wanted });
        let (people, presence, network, task) = (&self.population, &self.presence, &self.network, &self.task);
        if let Some(devices) = people.devices.filter(|devices| !(3..=MOST_DEVICES).contains(devices)) {
            return bad("population.devices", devices.to_string(), "3 to 1000000");
        }
        let positive = [
            ("population.training_secs", people.training_secs),
            ("population.examples", people.examples),
            ("network.up_kib_a_sec", network.up_kib_a_sec),
            ("network.down_kib_a_sec", network.down_kib_a_sec),
            ("presence.hours", presence.hours),
        ];
        for (key, value) in positive {
            if !(value > 0.0 && value <= 1e6) {
                return bad(key, value.to_string(), "a number above 0, up to 1000000");
            }
        }
        let spreads = [
            ("population.speed_spread", people.speed_spread),
            ("population.examples_spread", people.examples_spread),
            ("network.spread", network.spread),
            ("presence.hours_spread", presence.hours_spread),
        ];
        for (key, value) in spreads {
            if !(0.0..=3.0).contains(&value) {
                return bad(key, value.to_string(), "0 to 3");
            }
        }
        if !(0.0..=86_400.0).contains(&presence.arrive_secs) {
            return bad("presence.arrive_secs", presence.arrive_secs.to_string(), "0 to 86400");
        }
        if presence.zones.is_empty() || presence.zones.iter().any(|zone| !(-14.0..=14.0).contains(zone)) {
            return bad("presence.zones", format!("{:?}", presence.zones), "at least one, each -14 to 14");
        }
        if !(0.0..24.0).contains(&presence.from_hour) {
            return bad("presence.from_hour", presence.from_hour.to_string(), "0 to below 24");
        }
        if presence.hours > 23.0 {
            return bad("presence.hours", presence.hours.to_string(), "above 0, up to 23");
        }
        if !(presence.days > 0.0 && presence.days <= 1.0) {
            return bad("presence.days", presence.days.to_string(), "above 0, up to 1");
        }
        match (presence.model, &presence.trace) {
            (PresenceModel::Trace, None) => {
                return bad(
                    "presence.trace",
                    "left out".to_owned(),
                    "a file with presence.model = \"trace\"",
                );
            }
            (PresenceModel::Always, Some(_)) => {
                let (key, with) = ("presence.trace", "presence.model = \"always\"");
                return Err(ScenarioError::NoEffect { key, with });
            }
            (PresenceModel::Diurnal, Some(_)) => {
                let (key, with) = ("presence.trace", "presence.model = \"diurnal\"");
                return Err(ScenarioError::NoEffect { key, with });
            }
            (PresenceModel::Trace, Some(_)) | (PresenceModel::Always | PresenceModel::Diurnal, None) => {}
        }
        if network.latency_millis > 60_000 {
            return bad("network.latency_millis", network.latency_millis.to_string(), "0 to 60000");
        }
        if let Some(rate) = task.learning_rate.filter(|rate| !(*rate > 0.0 && *rate <= 1.0)) {
            return bad("task.learning_rate", rate.to_string(), "above 0, up to 1");
        }
        if !(1..=10_000).contains(&task.versions) {
            return bad("task.versions", task.versions.to_string(), "1 to 10000");
        }
        if !(1..=MAX_ROUNDS).contains(&task.rounds) {
            return bad("task.rounds", task.rounds.to_string(), "1 to 128");
        }
        if let Some(rounds) = task.min_rounds.filter(|rounds| !(1..=task.rounds).contains(rounds)) {
            return bad("task.min_rounds", rounds.to_string(), "1 to task.rounds");
        }
        if !(1..=1000).contains(&task.local_steps) {
            return bad("task.local_steps", task.local_steps.to_string(), "1 to 1000");
        }
        if !(0.0..=100.0).contains(&task.heterogeneity) {
            return bad("task.heterogeneity", task.heterogeneity.to_string(), "0 to 100");
        }
        if !(1..=960).contains(&task.patience_hours) {
            return bad("task.patience_hours", task.patience_hours.to_string(), "1 to 960");
        }
        self.check_round()?;
        self.check_privacy()?;
        let model = &self.model;
        if self.projections()?.is_empty() {
            return bad("model.targets", "[]".to_owned(), "at least one layer, or \"all\"");
        }
        if task.objective == ObjectiveName::Engine {
            let needed = [("model.base", &model.base, BASE), ("model.data", &model.data, DATA)];
            if let Some((key, _, wanted)) = needed.into_iter().find(|(_, path, _)| path.is_none()) {
                return bad(key, "left out".to_owned(), wanted);
            }
        }
        let faults = &self.faults;
        let permille = [
            ("faults.drop_out_permille", faults.drop_out_permille),
            ("faults.lost_permille", faults.lost_permille),
            ("faults.repeated_permille", faults.repeated_permille),
        ];
        for (key, value) in permille {
            if value > 999 {
                return bad(key, value.to_string(), "0 to 999");
            }
        }
        if faults.crashes_per_100k > 10_000 {
            return bad("faults.crashes_per_100k", faults.crashes_per_100k.to_string(), "0 to 10000");
        }
        Ok(())
    }

    /// What a round cannot be. A cohort that is too large is refused beside what may be done about it.
    fn check_round(&self) -> Result<(), ScenarioError> {
        let task = &self.task;
        let bad = |key, found: String, wanted| Err(ScenarioError::Value { key, found, wanted });
        if task.cohort < 2 {
            return bad(
                "task.cohort",
                task.cohort.to_string(),
                "at least 2: a sum of one device hides nothing",
            );
        }
        if let Some(goal) = task.report_goal.filter(|goal| *goal < 2) {
            return bad(
                "task.report_goal",
                goal.to_string(),
                "at least 2: a sum of one device hides nothing",
            );
        }
        if !(1..=MAX_COORDINATES).contains(&(task.coordinates as usize)) {
            return bad("task.coordinates", task.coordinates.to_string(), "1 to 16777216");
        }
        let most = MAX_ROUND_MILLIS / 1000;
        for (key, secs) in [("task.join_secs", task.join_secs), ("task.step_secs", task.step_secs)] {
            if !(1..=most).contains(&secs) {
                return bad(key, secs.to_string(), "1 to 604800, a week");
            }
        }
        if task.grace_secs > most {
            return bad("task.grace_secs", task.grace_secs.to_string(), "0 to 604800, a week");
        }
        Ok(())
    }

    fn check_privacy(&self) -> Result<(), ScenarioError> {
        let privacy = &self.privacy;
        let bad = |key, found: String, wanted| Err(ScenarioError::Value { key, found, wanted });
        let noise = privacy.noise_multiplier;
        match privacy.mode {
            Mode::Off if noise != 0.0 => {
                return bad("privacy.noise_multiplier", noise.to_string(), "0 with privacy.mode = \"off\"");
            }
            Mode::Central | Mode::Distributed if !(noise > 0.0 && noise <= MOST_NOISE) => {
                let wanted = "above 0, up to 100000; without noise say privacy.mode = \"off\" too";
                return bad("privacy.noise_multiplier", noise.to_string(), wanted);
            }
            Mode::Off | Mode::Central | Mode::Distributed => {}
        }
        if !(privacy.clip_norm > 0.0 && privacy.clip_norm <= MOST_CLIP) {
            // As a number with an exponent: it may have hundreds of digits.
            return bad("privacy.clip_norm", format!("{:e}", privacy.clip_norm), "above 0, up to 1e30");
        }
        if !(privacy.delta > 0.0 && privacy.delta < 1.0) {
            return bad("privacy.delta", privacy.delta.to_string(), "above 0 and below 1");
        }
        if privacy.corrupt_permille >= 500 {
            return bad("privacy.corrupt_permille", privacy.corrupt_permille.to_string(), "0 to 499");
        }
        if !(1..=MAX_VERSIONS).contains(&privacy.participations) {
            return bad("privacy.participations", privacy.participations.to_string(), "1 to 100000");
        }
        Ok(())
    }
}
