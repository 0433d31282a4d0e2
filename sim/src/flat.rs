//! Whether a version gained anything beyond its noise.
//!
//! It is decided by people who take no part and show their loss to whoever coordinates: so the decision tells nothing
//! of those who do, and costs no ε.

/// Standard errors above 0 at which a mean gain is no chance.
const ERRORS: f64 = 2.0;

/// A mean gain, in nats a token, that is worth no ε whatever its error.
const WORTHLESS: f64 = 0.005;

/// Whether these people's losses, one each, fell from `before` to `after` by no more than chance explains, or by next
/// to nothing: by a mean of at most twice its standard error, or 0.005 nats a token. Differences within one person are compared, because people differ by far more
/// than versions do. With fewer than two people nothing is known, and nothing is flat.
pub(crate) fn is_flat(before: &[f64], after: &[f64]) -> bool {
    let gains: Vec<f64> = before.iter().zip(after).map(|(before, after)| before - after).collect();
    if gains.len() < 2 {
        return false;
    }
    let count = gains.len() as f64;
    let mean = gains.iter().sum::<f64>() / count;
    let variance = gains.iter().map(|gain| (gain - mean).powi(2)).sum::<f64>() / (count - 1.0);
    // A loss that is no number gained nothing.
    mean.is_nan() || mean <= f64::max(ERRORS * (variance / count).sqrt(), WORTHLESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gain_that_all_have_is_none_of_chance() {
        assert!(!is_flat(&[3.0, 2.5, 4.0, 3.5], &[2.9, 2.42, 3.88, 3.4]));
    }

    #[test]
    fn a_gain_of_some_that_others_lose_is_flat() {
        assert!(is_flat(&[3.0, 2.5, 4.0, 3.5], &[2.7, 2.75, 3.8, 3.65]));
    }

    #[test]
    fn no_change_and_a_rise_are_flat() {
        let before = [3.0, 2.5, 4.0];
        assert!(is_flat(&before, &before));
        assert!(is_flat(&before, &[3.1, 2.6, 4.1]));
    }

    #[test]
    fn the_same_mean_gain_is_flat_where_it_differs_too_much_between_people() {
        assert!(!is_flat(&[1.0; 4], &[0.9, 0.9, 0.88, 0.92]));
        assert!(is_flat(&[1.0; 4], &[0.5, 1.1, 1.0, 1.0]));
    }

    #[test]
    fn a_gain_of_next_to_nothing_is_flat_however_certain_it_is() {
        assert!(is_flat(&[1.0; 4], &[0.996; 4]));
        assert!(!is_flat(&[1.0; 4], &[0.994; 4]));
    }

    #[test]
    fn a_run_that_diverged_is_flat_and_one_person_decides_nothing() {
        assert!(is_flat(&[1.0, 1.0], &[f64::NAN, 0.5]));
        assert!(!is_flat(&[1.0], &[1.0]));
        assert!(!is_flat(&[], &[]));
    }
}
