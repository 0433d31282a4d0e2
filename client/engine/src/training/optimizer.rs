//! The local optimizer: gradient clipping, warmup and learning-rate schedule, AdamW or SGD.

use std::f64::consts::PI;

use proto::training::{LocalOptimizer, TrainingPlan};

use crate::kernels::narrow;

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;
const EPS: f64 = 1e-8;

/// Learning-rate schedule after the warmup.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Schedule {
    /// A constant learning rate.
    #[default]
    Constant,
    /// Cosine decay to `floor` at the last step (Loshchilov and Hutter 2017, arXiv 1608.03983, without
    /// restarts).
    Cosine {
        /// The learning rate at the end, as a fraction of the plan's.
        floor: f64,
    },
}

impl Schedule {
    /// Factor on the learning rate after `done` of the `of` steps that follow the warmup.
    fn share(self, done: u32, of: u32) -> f64 {
        match self {
            Self::Constant => 1.0,
            Self::Cosine { floor } => {
                let turned = PI * f64::from(done.min(of)) / f64::from(of.max(1));
                floor + (1.0 - floor) * 0.5 * (1.0 + turned.cos())
            }
        }
    }
}

/// An optimizer and its state, which is new in every assignment.
#[derive(Debug)]
pub(crate) struct Optimizer {
    kind: LocalOptimizer,
    learning_rate: f64,
    warmup_steps: u32,
    max_grad_norm: f64,
    steps: u32,
    schedule: Schedule,
    step: u32,
    moments: Vec<(f32, f32)>,
}

impl Optimizer {
    /// An optimizer of `len` parameters that follows `plan`, with a constant learning rate after the warmup.
    pub(crate) fn new(plan: &TrainingPlan, len: usize) -> Self {
        let moments = match plan.optimizer {
            LocalOptimizer::AdamW { .. } => vec![(0.0, 0.0); len],
            LocalOptimizer::Sgd => Vec::new(),
        };
        Self {
            kind: plan.optimizer,
            learning_rate: plan.learning_rate,
            warmup_steps: plan.warmup_steps,
            max_grad_norm: plan.max_grad_norm,
            steps: plan.local_steps,
            schedule: Schedule::Constant,
            step: 0,
            moments,
        }
    }

    /// The same optimizer with another schedule after the warmup.
    pub(crate) fn with_schedule(self, schedule: Schedule) -> Self {
        Self { schedule, ..self }
    }

    /// The optimizer state: steps done, and first and second moments of every parameter.
    pub(crate) fn state(&self) -> (u32, [Vec<f32>; 2]) {
        (self.step, self.moments.iter().copied().unzip().into())
    }

    /// Restores an optimizer state; fails if it is of another number of parameters.
    pub(crate) fn restore(&mut self, step: u32, [first, second]: [Vec<f32>; 2]) -> Result<(), String> {
        if first.len() != self.moments.len() || second.len() != self.moments.len() {
            return Err(format!("{} moments for {} parameters", first.len(), self.moments.len()));
        }
        self.step = step;
        self.moments = first.into_iter().zip(second).collect();
        Ok(())
    }

    /// Clips `gradient` to the plan's norm and updates `parameters`; fails with the name of what is not finite.
    pub(crate) fn step(&mut self, parameters: &mut [f32], gradient: &mut [f32]) -> Result<(), &'static str> {
        let norm = gradient.iter().map(|g| f64::from(*g) * f64::from(*g)).sum::<f64>().sqrt();
        if !norm.is_finite() {
            return Err("gradient");
        }
        if norm > self.max_grad_norm {
            let factor = narrow(self.max_grad_norm / norm);
            for g in &mut *gradient {
                *g *= factor;
            }
        }
        self.step += 1;
        let share = if self.step < self.warmup_steps {
            f64::from(self.step) / f64::from(self.warmup_steps)
        } else {
            let after = self.steps.saturating_sub(self.warmup_steps);
            self.schedule.share(self.step - self.warmup_steps, after)
        };
        let rate = self.learning_rate * share;
        match self.kind {
            LocalOptimizer::AdamW { weight_decay } => self.adam_w(parameters, gradient, rate, weight_decay),
            LocalOptimizer::Sgd => {
                let rate = narrow(rate);
                parameters.iter_mut().zip(gradient).for_each(|(x, g)| *x -= rate * *g);
            }
        }
        if parameters.iter().all(|x| x.is_finite()) { Ok(()) } else { Err("adapter") }
    }

    /// AdamW: Algorithm 2 of Loshchilov and Hutter, arXiv 1711.05101, with the schedule in `rate`. As in
    /// PyTorch, and unlike the paper, the weight decay is multiplied by the whole learning rate.
    fn adam_w(&mut self, parameters: &mut [f32], gradient: &[f32], rate: f64, weight_decay: f64) {
        let step = f64::from(self.step);
        let (beta1, beta2) = (narrow(BETA1), narrow(BETA2));
        let keep = narrow(1.0 - rate * weight_decay);
        let (size, root) = (narrow(rate / (1.0 - BETA1.powf(step))), narrow((1.0 - BETA2.powf(step)).sqrt()));
        let eps = narrow(EPS);
        for ((x, g), (m, v)) in parameters.iter_mut().zip(gradient).zip(&mut self.moments) {
            *m = beta1 * *m + (1.0 - beta1) * g;
            *v = beta2 * *v + (1.0 - beta2) * g * g;
            *x = *x * keep - size * *m / (v.sqrt() / root + eps);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(optimizer: LocalOptimizer) -> TrainingPlan {
        TrainingPlan {
            local_steps: 1,
            batch_size: 1,
            sequence_len: 2,
            learning_rate: 0.1,
            warmup_steps: 0,
            max_grad_norm: 10.0,
            optimizer,
        }
    }

    #[test]
    fn two_steps_of_adam_with_decay_follow_the_formulas() {
        let mut optimizer = Optimizer::new(&plan(LocalOptimizer::AdamW { weight_decay: 0.5 }), 1);
        let mut x = [2.0];
        optimizer.step(&mut x, &mut [4.0]).unwrap();
        // The first step of Adam is the sign of the gradient.
        assert!((x[0] - (2.0 * 0.95 - 0.1)).abs() < 1e-6);
        optimizer.step(&mut x, &mut [-4.0]).unwrap();
        // m = 0.9·0.4 − 0.4 = −0.04, over 1 − 0.81; v = 16 after its correction.
        let expected = 1.8 * 0.95 - 0.1 * (-0.04 / 0.19) / 4.0;
        assert!((x[0] - expected).abs() < 1e-6, "{} {expected}", x[0]);
    }

    #[test]
    fn a_long_gradient_is_clipped_and_a_short_one_is_not() {
        let mut optimizer = Optimizer::new(&plan(LocalOptimizer::Sgd), 2);
        let mut x = [0.0, 0.0];
        optimizer.step(&mut x, &mut [30.0, 40.0]).unwrap();
        assert!((x[0] + 0.6).abs() < 1e-6 && (x[1] + 0.8).abs() < 1e-6);
        optimizer.step(&mut x, &mut [6.0, 0.0]).unwrap();
        assert!((x[0] + 1.2).abs() < 1e-6);
    }

    #[test]
    fn the_step_size_rises_over_the_warm_up() {
        let plan = TrainingPlan { warmup_steps: 4, ..plan(LocalOptimizer::Sgd) };
        let mut optimizer = Optimizer::new(&plan, 1);
        let (mut x, mut sizes) = ([0.0], Vec::new());
        for _ in 0..6 {
            let before = x[0];
            optimizer.step(&mut x, &mut [-1.0]).unwrap();
            sizes.push(x[0] - before);
        }
        for (size, expected) in sizes.iter().zip([0.025, 0.05, 0.075, 0.1, 0.1, 0.1]) {
            assert!((size - expected).abs() < 1e-6, "{sizes:?}");
        }
    }

    #[test]
    fn a_gradient_that_is_not_finite_is_refused() {
        let mut optimizer = Optimizer::new(&plan(LocalOptimizer::Sgd), 1);
        assert_eq!(optimizer.step(&mut [0.0], &mut [f32::NAN]), Err("gradient"));
    }
}
