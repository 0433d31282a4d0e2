//! The order in which a pass applied its operations, and the way back through them.
//!
//! candle's own way back starts every gradient from zeros and adds to it on several threads; here the first
//! gradient of a tensor is kept as it comes, a second one is added in one loop, and all stays on one thread.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use candle_core::{CustomOp1, CustomOp2, CustomOp3, Result, Tensor, TensorId};

use super::ops;

/// Operations applied so far whose result has a gradient.
#[derive(Default)]
pub(crate) struct Tape {
    nodes: RefCell<Vec<Node>>,
}

/// An operation, its arguments and its result.
enum Node {
    One(Arc<Box<dyn CustomOp1 + Send + Sync>>, Tensor, Tensor),
    Two(Arc<Box<dyn CustomOp2 + Send + Sync>>, [Tensor; 2], Tensor),
    Three(Arc<Box<dyn CustomOp3 + Send + Sync>>, [Tensor; 3], Tensor),
}

/// The gradients of the tensors that are no operation's result.
#[derive(Debug)]
pub(crate) struct Gradients(HashMap<TensorId, Tensor>);

impl Tape {
    /// `op(x)`.
    pub(crate) fn one(&self, x: &Tensor, op: impl CustomOp1 + Send + Sync + 'static) -> Result<Tensor> {
        let op: Arc<Box<dyn CustomOp1 + Send + Sync>> = Arc::new(Box::new(op));
        let y = x.apply_op1_arc(Arc::clone(&op))?;
        Ok(self.push(y, |y| Node::One(op, x.clone(), y)))
    }

    /// `op(x[0], x[1])`.
    pub(crate) fn two(&self, x: [&Tensor; 2], op: impl CustomOp2 + Send + Sync + 'static) -> Result<Tensor> {
        let op: Arc<Box<dyn CustomOp2 + Send + Sync>> = Arc::new(Box::new(op));
        let y = x[0].apply_op2_arc(x[1], Arc::clone(&op))?;
        Ok(self.push(y, |y| Node::Two(op, x.map(Tensor::clone), y)))
    }

    /// `op(x[0], x[1], x[2])`.
    pub(crate) fn three(
        &self,
        x: [&Tensor; 3],
        op: impl CustomOp3 + Send + Sync + 'static,
    ) -> Result<Tensor> {
        let op: Arc<Box<dyn CustomOp3 + Send + Sync>> = Arc::new(Box::new(op));
        let y = x[0].apply_op3_arc(x[1], x[2], Arc::clone(&op))?;
        Ok(self.push(y, |y| Node::Three(op, x.map(Tensor::clone), y)))
    }

    fn push(&self, y: Tensor, node: impl FnOnce(Tensor) -> Node) -> Tensor {
        if y.track_op() {
            self.nodes.borrow_mut().push(node(y.clone()));
        }
        y
    }

    /// The gradients of the sum of `loss`, the last result; leaves the tape empty.
    pub(crate) fn gradients(&self, loss: &Tensor) -> Result<Gradients> {
        let mut gradients = Gradients(HashMap::new());
        gradients.0.insert(loss.id(), loss.ones_like()?);
        for node in self.nodes.take().into_iter().rev() {
            match node {
                Node::One(op, x, y) => {
                    let Some(dy) = gradients.0.remove(&y.id()) else { continue };
                    gradients.add(&x, op.bwd(&x, &y, &dy)?)?;
                }
                Node::Two(op, [x0, x1], y) => {
                    let Some(dy) = gradients.0.remove(&y.id()) else { continue };
                    let (d0, d1) = op.bwd(&x0, &x1, &y, &dy)?;
                    gradients.add(&x0, d0)?;
                    gradients.add(&x1, d1)?;
                }
                Node::Three(op, [x0, x1, x2], y) => {
                    let Some(dy) = gradients.0.remove(&y.id()) else { continue };
                    let (d0, d1, d2) = op.bwd(&x0, &x1, &x2, &y, &dy)?;
                    gradients.add(&x0, d0)?;
                    gradients.add(&x1, d1)?;
                    gradients.add(&x2, d2)?;
                }
            }
        }
        Ok(gradients)
    }
}

impl Gradients {
    /// The gradient of `tensor`, if the loss depends on it.
    pub(crate) fn get(&self, tensor: &Tensor) -> Option<&Tensor> {
        self.0.get(&tensor.id())
    }

    fn add(&mut self, tensor: &Tensor, gradient: Option<Tensor>) -> Result<()> {
        let Some(gradient) = gradient.filter(|_| tensor.track_op()) else { return Ok(()) };
        let sum = match self.0.remove(&tensor.id()) {
            Some(earlier) => ops::total(&earlier, &gradient)?,
            None => gradient,
        };
        self.0.insert(tensor.id(), sum);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::super::ops::{Add, Linear, SwiGlu};
    use super::*;

    #[test]
    fn a_tensor_that_is_used_often_gets_the_sum_of_its_gradients() {
        let var = |seed: f32, rows: usize| {
            let numbers = (0..rows * 4).map(|i| (i as f32 * seed).sin()).collect();
            Var::from_vec(numbers, (rows, 4), &Device::Cpu).unwrap()
        };
        let (x, w, unused) = (var(0.7, 3), var(1.3, 4), var(0.2, 2));
        let tape = Tape::default();
        let y = tape.two([&x, &w], Linear { bias: None }).unwrap();
        let y = tape.two([&y, &x], SwiGlu).unwrap();
        let y = tape.two([&y, &x], Add).unwrap();
        let z = tape.two([&y, &w], Linear { bias: None }).unwrap();
        let y = tape.two([&z, &y], Add).unwrap();
        let expected = y.sum_all().unwrap().backward().unwrap();
        let found = tape.gradients(&y).unwrap();
        for var in [&x, &w] {
            let far = (found.get(var).unwrap() - expected.get(var).unwrap()).unwrap();
            let far = far.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(far < 1e-5, "{far}");
        }
        assert!(found.get(&unused).is_none() && found.get(&y).is_none());
    }
}
