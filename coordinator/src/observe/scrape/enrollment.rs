//! The log of enrollments, its witnesses, and the authority apart.

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry as Metrics, Unit};
use proto::admin::{AuthorityStatus, LogStatus, WitnessStatus};

use super::gauges::{gauge, whole};
use crate::metrics::Labels;

/// A witness's name, which its operator and ours chose.
type OfWitness = [(&'static str, String); 1];

/// Which metric of a witness it is, what it says, and the number.
type Metric = (&'static str, &'static str, fn(&WitnessStatus) -> u64);

const WITNESSES: [Metric; 3] = [
    ("nightshift_witness_entries", "Entries of the head that a witness signed last", |witness| {
        witness.signed_size
    }),
    ("nightshift_witness_trouble", "1 while a witness does not sign, 0 otherwise", |witness| {
        witness.trouble.is_some().into()
    }),
    (
        "nightshift_witness_saw_other_log",
        "1 where a witness saw another log of the same key, 0 otherwise",
        |witness| witness.saw_other_log.into(),
    ),
];

/// What is known of them.
pub(super) fn register(metrics: &mut Metrics, log: &LogStatus, authority: Option<&AuthorityStatus>) {
    let answers = authority.is_none_or(|authority| authority.answers);
    metrics.register(
        "nightshift_authority_answers",
        "1 while the enrollment authority answers, or is this coordinator itself; 0 otherwise",
        gauge(answers.into()),
    );
    for (name, help, value) in [
        ("nightshift_log_entries", "Entries of the enrollment log", log.size),
        ("nightshift_log_devices", "Devices that ever enrolled, by the enrollment log", log.devices),
        (
            "nightshift_log_young_devices",
            "Devices that enrolled within a day, by the enrollment log",
            log.young_devices,
        ),
        (
            "nightshift_log_rounds_entries",
            "Entries below the head of the enrollment log that rounds are about",
            log.rounds_size,
        ),
        (
            "nightshift_log_waiting_versions",
            "Versions that are to become entries of the enrollment log",
            log.waiting_versions,
        ),
        (
            "nightshift_log_least_witnesses",
            "Witnesses that must have signed a head that rounds are about",
            log.least_witnesses.into(),
        ),
        (
            "nightshift_log_rounds_witnesses",
            "Witnesses that signed the head of the enrollment log that rounds are about",
            log.rounds_witnesses.into(),
        ),
    ] {
        metrics.register(name, help, gauge(value));
    }
    let heads = Family::<Labels<1>, Gauge>::default();
    for (head, signed) in [("newest", log.head_unix_secs), ("rounds", log.rounds_unix_secs)] {
        // There is none yet.
        if signed > 0 {
            heads.get_or_create(&[("head", head)]).set(whole(signed));
        }
    }
    metrics.register_with_unit(
        "nightshift_log_head_timestamp",
        "When heads of the enrollment log were signed, since 1970",
        Unit::Seconds,
        heads,
    );
    for (name, help, value) in WITNESSES {
        let family = Family::<OfWitness, Gauge>::default();
        for witness in &log.witnesses {
            family.get_or_create(&label(witness)).set(whole(value(witness)));
        }
        metrics.register(name, help, family);
    }
    let signed = Family::<OfWitness, Gauge>::default();
    for witness in log.witnesses.iter().filter(|witness| witness.signed_unix_secs > 0) {
        signed.get_or_create(&label(witness)).set(whole(witness.signed_unix_secs));
    }
    metrics.register_with_unit(
        "nightshift_witness_signed_timestamp",
        "When a witness signed a head last, since 1970",
        Unit::Seconds,
        signed,
    );
}

/// The name, without what would end a label.
fn label(witness: &WitnessStatus) -> OfWitness {
    let plain = |character: char| {
        if character.is_ascii_graphic() && !['"', '\\'].contains(&character) { character } else { '_' }
    };
    [("witness", witness.name.chars().map(plain).collect())]
}
