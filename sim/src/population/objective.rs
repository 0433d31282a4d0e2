//! What is trained in the place of a model: closed formulas, whose optimum is known.

use proto::ids::Digest;
use rand_core::Rng;

use super::dice::{below, normal, of};
use super::people::People;
use super::scenario::{ObjectiveName, Scenario, USUAL_RATE};

/// Coordinates that one example of a logistic regression touches.
const TOUCHED: usize = 8;

/// Examples of a device that are trained on and measured on, at most.
const MOST_EXAMPLES: u32 = 64;

/// Devices of which losses are measured, at most: the first.
pub(super) const MEASURED: usize = 200;

/// The length of the true parameters of a logistic regression, for each coordinate that an example touches.
const SHARPNESS: f32 = 4.0;

/// What is trained.
#[derive(Clone, Debug)]
pub struct Objective {
    kind: Kind,
    steps: u32,
    rate: f32,
    heterogeneity: f32,
    seed: Digest,
    devices: usize,
}

#[derive(Clone, Debug)]
enum Kind {
    None,
    /// The optimum of a device is `center + heterogeneity · z · axis`, with `z` a number of the device.
    Quadratic {
        center: Vec<f32>,
        axis: Vec<f32>,
        /// Of all devices together.
        optimum: Vec<f32>,
    },
    Logistic {
        truth: Vec<f32>,
        /// Of each device.
        examples: Vec<u32>,
    },
}

/// Which coordinates an example has, with their values, and its label.
struct Example {
    at: [usize; TOUCHED],
    values: [f32; TOUCHED],
    label: f32,
}

impl Objective {
    /// That of the scenario, for these people.
    pub fn new(scenario: &Scenario, people: &People) -> Self {
        let (task, seed) = (&scenario.task, scenario.digest("objective"));
        let len = usize::try_from(task.coordinates).unwrap_or(usize::MAX);
        // No device is of these places.
        let unit = |place: usize| {
            let mut rng = of(&seed, usize::MAX - place);
            let scale = 1.0 / (len as f64).sqrt();
            (0..len).map(|_| narrow(scale * normal(&mut rng))).collect::<Vec<f32>>()
        };
        let kind = match task.objective {
            // The engine's trainings are no formula.
            ObjectiveName::None | ObjectiveName::Engine => Kind::None,
            ObjectiveName::Quadratic => {
                let (center, axis) = (unit(0), unit(1));
                let sum: f64 = (0..people.devices()).map(|device| own(&seed, device)).sum();
                let along = task.heterogeneity * narrow(sum / people.devices() as f64);
                let optimum = center.iter().zip(&axis).map(|(c, a)| c + along * a).collect();
                Kind::Quadratic { center, axis, optimum }
            }
            ObjectiveName::Logistic => {
                let longer = SHARPNESS * narrow((len as f64).sqrt());
                let truth = unit(0).into_iter().map(|x| longer * x).collect();
                let measured = people.devices().min(MEASURED);
                let examples = (0..measured).map(|device| people.examples(device)).collect();
                Kind::Logistic { truth, examples }
            }
        };
        let devices = people.devices();
        Self {
            kind,
            steps: task.local_steps,
            rate: narrow(task.learning_rate.unwrap_or(USUAL_RATE)),
            heterogeneity: task.heterogeneity,
            seed,
            devices,
        }
    }

    /// What a device makes of the parameters on so many examples, and its loss before.
    pub fn trains(&self, device: usize, examples: u32, before: &[f32]) -> (Vec<f32>, f64) {
        match &self.kind {
            Kind::None => (before.to_vec(), 0.0),
            Kind::Quadratic { center, axis, .. } => {
                let along = self.heterogeneity * narrow(own(&self.seed, device));
                // That far so many steps of gradient descent go.
                let exponent = i32::try_from(self.steps).unwrap_or(i32::MAX);
                let way = 1.0 - (1.0 - self.rate).powi(exponent);
                let mut squares = 0.0;
                let one = |((x, c), a): ((&f32, &f32), &f32)| {
                    let off = c + along * a - x;
                    squares += f64::from(off * off);
                    x + way * off
                };
                let after = before.iter().zip(center).zip(axis).map(one).collect();
                (after, squares / 2.0)
            }
            Kind::Logistic { truth, .. } => {
                let examples = self.examples(device, examples, truth);
                let before_loss = mean_loss(&examples, before);
                let mut after = before.to_vec();
                for _ in 0..self.steps {
                    let slopes: Vec<f32> = examples.iter().map(|example| example.slope(&after)).collect();
                    let step = self.rate / examples.len().max(1) as f32;
                    for (example, slope) in examples.iter().zip(slopes) {
                        for (at, value) in example.at.iter().zip(example.values) {
                            after[*at] -= step * slope * value;
                        }
                    }
                }
                (after, before_loss)
            }
        }
    }

    /// How far parameters are: of a quadratic by how much its value is above the least, of a logistic regression the mean
    /// loss on the examples of the first devices, in nats. Nothing where nothing is trained.
    pub fn measure(&self, parameters: &[f32]) -> Option<f64> {
        match &self.kind {
            Kind::None => None,
            Kind::Quadratic { optimum, .. } => {
                let squares = parameters.iter().zip(optimum).map(|(x, o)| f64::from((x - o) * (x - o)));
                Some(squares.sum::<f64>() / 2.0)
            }
            Kind::Logistic { examples, .. } => {
                let losses = self.losses(parameters);
                Some(losses.iter().sum::<f64>() / examples.len().max(1) as f64)
            }
        }
    }

    /// The loss of each of the first devices at these parameters: half the squared distance to its own optimum, or the mean
    /// loss on its examples. Nothing where nothing is trained.
    pub fn losses(&self, parameters: &[f32]) -> Vec<f64> {
        let measured = self.devices.min(MEASURED);
        match &self.kind {
            Kind::None => Vec::new(),
            Kind::Quadratic { center, axis, .. } => {
                let loss = |device: usize| {
                    let along = self.heterogeneity * narrow(own(&self.seed, device));
                    let one = |((x, c), a): ((&f32, &f32), &f32)| f64::from(c + along * a - x).powi(2);
                    parameters.iter().zip(center).zip(axis).map(one).sum::<f64>() / 2.0
                };
                (0..measured).map(loss).collect()
            }
            Kind::Logistic { truth, examples } => {
                let loss = |(device, examples): (usize, &u32)| {
                    mean_loss(&self.examples(device, *examples, truth), parameters)
                };
                examples.iter().take(measured).enumerate().map(loss).collect()
            }
        }
    }

    fn examples(&self, device: usize, examples: u32, truth: &[f32]) -> Vec<Example> {
        let mut rng = of(&self.seed, device);
        (0..examples.min(MOST_EXAMPLES))
            .map(|_| {
                let at: [usize; TOUCHED] = std::array::from_fn(|_| below(&mut rng, truth.len()));
                let size = 1.0 / (TOUCHED as f32).sqrt();
                let values =
                    std::array::from_fn(|_| if rng.next_u32().is_multiple_of(2) { size } else { -size });
                let sure: f32 =
                    at.iter().zip(values).map(|(at, value): (&usize, f32)| truth[*at] * value).sum();
                let seen = sure + self.heterogeneity * narrow(normal(&mut rng));
                Example { at, values, label: if seen > 0.0 { 1.0 } else { -1.0 } }
            })
            .collect()
    }
}

impl Example {
    fn margin(&self, parameters: &[f32]) -> f32 {
        let sum: f32 = self.at.iter().zip(self.values).map(|(at, value)| parameters[*at] * value).sum();
        self.label * sum
    }

    /// The derivative of the loss by the sum over the example's coordinates.
    fn slope(&self, parameters: &[f32]) -> f32 {
        -self.label / (1.0 + self.margin(parameters).exp())
    }
}

/// `ln(1 + exp(−margin))`, without overflow.
fn mean_loss(examples: &[Example], parameters: &[f32]) -> f64 {
    let loss = |example: &Example| {
        let margin = f64::from(example.margin(parameters));
        (-margin).max(0.0) + (-margin.abs()).exp().ln_1p()
    };
    examples.iter().map(loss).sum::<f64>() / examples.len().max(1) as f64
}

/// The number by which a device's optimum is off.
fn own(seed: &Digest, device: usize) -> f64 {
    normal(&mut of(seed, device))
}

#[expect(clippy::cast_possible_truncation, reason = "rounded to the precision of parameters")]
fn narrow(x: f64) -> f32 {
    x as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::population::scenario::TaskTable;

    fn objective(objective: ObjectiveName) -> (Objective, People) {
        let task = TaskTable { objective, coordinates: 50, heterogeneity: 0.5, ..TaskTable::default() };
        let mut scenario = Scenario { task, ..Scenario::default() };
        scenario.population.devices = Some(40);
        let people = People::new(&scenario, None);
        (Objective::new(&scenario, &people), people)
    }

    /// Versions of the plain mean of everybody's training.
    fn averaged(objective: &Objective, people: &People, versions: u32) -> Vec<f64> {
        let mut parameters = vec![0.0_f32; 50];
        let mut measured = vec![objective.measure(&parameters).unwrap()];
        for _ in 0..versions {
            let mut sum = vec![0.0_f32; 50];
            for device in 0..people.devices() {
                let (after, _) = objective.trains(device, people.examples(device), &parameters);
                sum.iter_mut().zip(after).for_each(|(sum, x)| *sum += x / people.devices() as f32);
            }
            parameters = sum;
            measured.push(objective.measure(&parameters).unwrap());
        }
        measured
    }

    #[test]
    fn the_mean_of_all_trainings_of_a_quadratic_comes_to_its_optimum() {
        let (objective, people) = objective(ObjectiveName::Quadratic);
        let measured = averaged(&objective, &people, 30);
        // Each version goes 1 − 0.9⁵ of the way, so 0.9¹⁰ of the value is left.
        for pair in measured.windows(2).take(10) {
            assert!((pair[1] / pair[0] - 0.9_f64.powi(10)).abs() < 1e-3, "{pair:?}");
        }
        assert!(measured[30] < 1e-6, "{measured:?}");
    }

    #[test]
    fn the_mean_of_all_trainings_of_a_logistic_regression_lowers_its_loss() {
        let (objective, people) = objective(ObjectiveName::Logistic);
        let measured = averaged(&objective, &people, 200);
        assert!((measured[0] - std::f64::consts::LN_2).abs() < 1e-6, "{}", measured[0]);
        assert!(measured[200] < 0.9 * measured[0], "{}", measured[200]);
    }

    #[test]
    fn nothing_is_trained_where_nothing_is_to_be() {
        let (objective, _) = objective(ObjectiveName::None);
        assert_eq!(objective.trains(3, 9, &[1.0, 2.0]), (vec![1.0, 2.0], 0.0));
        assert_eq!(objective.measure(&[1.0]), None);
    }
}
