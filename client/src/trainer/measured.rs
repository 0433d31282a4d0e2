//! What a version gained, kept behind the training that was interrupted after it was measured: it is measured once.

use proto::metrics::Gains;
use zeroize::Zeroizing;

/// Ends a training behind which it stands.
const MARK: &[u8; 16] = b"\nmeasured gains1";

/// A number, and whether there is one.
const NUMBER_BYTES: usize = 9;

/// A training's bytes with what was measured behind them; as they are where nothing was.
pub(super) fn with(training: Zeroizing<Vec<u8>>, gains: Gains) -> Zeroizing<Vec<u8>> {
    if gains == Gains::default() {
        return training;
    }
    // Made large enough at once: a buffer that grows leaves copies behind.
    let mut both = Zeroizing::new(Vec::with_capacity(training.len() + 2 * NUMBER_BYTES + MARK.len()));
    both.extend_from_slice(&training);
    for gain in [gains.over_before, gains.over_base] {
        both.push(u8::from(gain.is_some()));
        both.extend_from_slice(&gain.unwrap_or_default().to_le_bytes());
    }
    both.extend_from_slice(MARK);
    both
}

/// The training's bytes, and what was measured, where that stands behind them.
pub(super) fn split(both: &[u8]) -> (&[u8], Option<Gains>) {
    let numbers = both.strip_suffix(MARK).and_then(|rest| rest.split_last_chunk::<{ 2 * NUMBER_BYTES }>());
    let Some((training, numbers)) = numbers else { return (both, None) };
    let (before, base) = numbers.split_at(NUMBER_BYTES);
    (training, Some(Gains { over_before: number(before), over_base: number(base) }))
}

fn number(bytes: &[u8]) -> Option<f64> {
    let (is_some, number) = bytes.split_first()?;
    let number = f64::from_le_bytes(number.try_into().ok()?);
    (*is_some == 1 && number.is_finite()).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_measured_is_behind_the_training_and_nothing_where_nothing_was() {
        let training = || Zeroizing::new(vec![1, 2, 3]);
        for (over_before, over_base) in [(Some(-0.25), None), (None, Some(0.5)), (Some(0.0), Some(1e-9))] {
            let gains = Gains { over_before, over_base };
            let both = with(training(), gains);
            let (found, measured) = split(&both);
            assert!(found == [1, 2, 3] && measured == Some(gains));
        }
        let none = with(training(), Gains::default());
        assert!(*none == [1, 2, 3] && split(&none) == (&[1, 2, 3][..], None));
        // Of an earlier agent, and too short.
        assert!(split(b"{}").1.is_none() && split(MARK).1.is_none() && split(b"").0.is_empty());
    }
}
