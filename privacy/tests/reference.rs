//! The accountant against `dp_accounting` and Opacus: `reference/values.json`,
//! which `reference/make_values.py` writes.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use nightshift_privacy::{
    Delta, NoiseMultiplier,
    accountant::{
        Accountant, PldAccountant, RdpCurve, SamplingRate, calibrate_sampled_gaussian_noise_multiplier,
        most_participations,
    },
    analytic_gaussian_epsilon,
};
use serde_json::Value;

#[test]
fn the_exact_gaussian_epsilon() {
    // Theirs is a root to a tolerance of 10^−12 or so.
    for row in rows("gaussian_epsilon") {
        let found = analytic_gaussian_epsilon(row.noise_multiplier(), row.delta());
        assert!(near(found, row.number("epsilon"), 1e-8), "{found} and {}", row.0);
    }
}

#[test]
fn divergences_at_one_order() {
    for row in rows("divergence") {
        let order = row.number("order");
        let found = row.curve().rdp(order);
        // Opacus takes logarithms of A, which is known to some 10^−15, so that
        // small divergences lose digits, as ours do: the slack is for A. Between
        // integer orders above 256 ours is a chord, but none is that large here.
        if let Some(opacus) = row.0["opacus"].as_f64() {
            let slack = 1e-7 * opacus + 1e-13 / (order - 1.0);
            assert!((found - opacus).abs() < slack, "{found} and {}", row.0);
        }
        // dp_accounting's fractional orders are above the divergence, by up to a
        // third: see `divergences_match_the_published_ones`. Where its series
        // does not converge it has no value; ours is then at most the next one.
        if let Some(google) = row.0["dp_accounting"].as_f64() {
            assert!(found < google * (1.0 + 1e-7) + 1e-13 / (order - 1.0), "{found} and {}", row.0);
            if order.fract() <= 0.0 {
                assert!(near(found, google, 1e-7), "{found} and {}", row.0);
            }
        } else {
            assert!(found <= row.curve().rdp(order.ceil()), "{found} and {}", row.0);
        }
    }
}

#[test]
fn epsilon_by_renyi_divergence() {
    let orders: Vec<f64> =
        values()["orders"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
    for row in rows("rdp_epsilon") {
        let mut accountant = Accountant::new();
        accountant.add(row.curve(), row.count("steps"));
        // The same orders and the same conversion: only rounding differs.
        let grid = on_grid(&accountant, &orders, row.delta().get());
        let opacus = row.number("opacus");
        assert!(near(grid, opacus, 1e-7), "{grid} and {}", row.0);
        // Theirs is the same where an integer order is best.
        assert!(grid <= row.number("dp_accounting") * (1.0 + 1e-9), "{grid} and {}", row.0);
        // Over all orders it is smaller, but no smaller than the truth, of which
        // the optimistic loss distribution is a lower bound.
        let found = accountant.epsilon(row.delta()).epsilon;
        assert!(found <= grid * (1.0 + 1e-9), "{found} and {}", row.0);
        let least = rows("pld_epsilon").find(|other| other.same_case(&row)).unwrap().number("optimistic");
        assert!(found >= least, "{found} below {least}");
    }
}

#[test]
fn published_epsilons() {
    let opacus: Vec<f64> =
        values()["orders"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
    let mut tf_privacy = vec![1.25, 1.5, 1.75, 2.0, 2.25, 2.5, 3.0, 3.5, 4.0, 4.5];
    tf_privacy.extend((5..64).map(f64::from));
    tf_privacy.extend([128.0, 256.0, 512.0]);
    for (q, z, participations, delta, orders, published) in [
        // Opacus, tests/accountants_test.py.
        (0.04, 1.5, 2250, 1e-5, &opacus, 7.329_111_171_43),
        // TensorFlow Privacy, compute_dp_sgd_privacy_test.py.
        (150.0 / 60_000.0, 1.3, 6000, 1e-5, &tf_privacy, 0.724_223_402_6),
        (100.0 / 100_000.0, 1.0, 30_000, 1e-7, &tf_privacy, 1.415_498_849_5),
    ] {
        let accountant = spent(q, z, participations);
        let grid = on_grid(&accountant, orders, delta);
        assert!(near(grid, published, 1e-8), "{grid} and {published}");
        let found = accountant.epsilon(Delta::new(delta).unwrap()).epsilon;
        assert!(found <= published && found > 0.99 * published, "{found} and {published}");
    }
    // dp_accounting over the orders of Opacus. The best is 4.4, where its
    // divergence is a little too large; Opacus itself finds 3.2391922.
    let found = on_grid(&spent(0.01, 0.7, 120), &opacus, 1e-5);
    assert!(near(found, 3.239_192_193_9, 1e-8), "{found}");
    let found = spent(0.01, 0.7, 120).epsilon(Delta::new(1e-5).unwrap()).epsilon;
    assert!(found <= 3.239_267_6 && found > 0.999 * 3.239_267_6, "{found}");
}

#[test]
fn epsilon_by_the_privacy_loss_distribution() {
    for row in rows("pld_epsilon") {
        let mut accountant = PldAccountant::new();
        accountant.add(row.noise_multiplier(), row.sampling_rate(), row.count("steps"));
        let found = accountant.epsilon(row.delta());
        let (low, high) = (row.number("optimistic"), row.number("pessimistic"));
        // Both are upper bounds, on grids that differ, so they differ by what
        // the coarser grid costs; the optimistic one is below the truth.
        assert!(near(found, high, 1e-3), "{found} and {}", row.0);
        assert!(found >= low, "{found} and {}", row.0);
        let mut renyi = Accountant::new();
        renyi.add(row.curve(), row.count("steps"));
        let bound = renyi.epsilon(row.delta()).epsilon;
        assert!(found < bound, "{found} and {bound} by divergence: {}", row.0);
    }
}

#[test]
fn calibrated_noise_and_participations() {
    for row in rows("noise_multiplier") {
        let (target, steps) = (row.number("epsilon"), row.count("steps"));
        let found =
            calibrate_sampled_gaussian_noise_multiplier(target, row.delta(), steps, row.sampling_rate())
                .unwrap();
        // Over all orders less noise is enough, but not much less.
        let theirs = row.number("z");
        assert!(found.get() <= theirs * (1.0 + 1e-8), "{found:?} and {}", row.0);
        assert!(found.get() > 0.99 * theirs, "{found:?} and {}", row.0);
        // The noise for so many participations affords so many and no more.
        let curve = RdpCurve::SampledGaussian { noise_multiplier: found, sampling_rate: row.sampling_rate() };
        assert_eq!(most_participations(&curve, target, row.delta()), steps, "{}", row.0);
    }
}

/// The conversion of Canonne, Kamath, Steinke at the best of `orders`.
fn on_grid(accountant: &Accountant, orders: &[f64], delta: f64) -> f64 {
    let at =
        |order: f64| accountant.rdp(order) + (-1.0 / order).ln_1p() - (delta * order).ln() / (order - 1.0);
    orders.iter().map(|&order| at(order)).fold(f64::INFINITY, f64::min)
}

fn spent(q: f64, z: f64, participations: u32) -> Accountant {
    let mut accountant = Accountant::new();
    let curve = RdpCurve::SampledGaussian {
        noise_multiplier: NoiseMultiplier::new(z).unwrap(),
        sampling_rate: SamplingRate::new(q).unwrap(),
    };
    accountant.add(curve, participations);
    accountant
}

fn near(found: f64, expected: f64, relative: f64) -> bool {
    (found - expected).abs() <= relative * expected.abs()
}

fn values() -> Value {
    serde_json::from_str(include_str!("reference/values.json")).unwrap()
}

fn rows(table: &str) -> impl Iterator<Item = Row> {
    values()[table].as_array().unwrap().clone().into_iter().map(Row)
}

/// One row of a table.
struct Row(Value);

impl Row {
    fn number(&self, name: &str) -> f64 {
        self.0[name].as_f64().unwrap()
    }

    fn count(&self, name: &str) -> u32 {
        u32::try_from(self.0[name].as_u64().unwrap()).unwrap()
    }

    fn delta(&self) -> Delta {
        Delta::new(self.number("delta")).unwrap()
    }

    fn noise_multiplier(&self) -> NoiseMultiplier {
        NoiseMultiplier::new(self.number("z")).unwrap()
    }

    fn sampling_rate(&self) -> SamplingRate {
        SamplingRate::new(self.number("q")).unwrap()
    }

    fn curve(&self) -> RdpCurve {
        RdpCurve::SampledGaussian {
            noise_multiplier: self.noise_multiplier(),
            sampling_rate: self.sampling_rate(),
        }
    }

    fn same_case(&self, other: &Self) -> bool {
        ["q", "z", "steps", "delta"].iter().all(|&name| self.0[name] == other.0[name])
    }
}
