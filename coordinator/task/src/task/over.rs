//! What a task that is over keeps in memory: what operators and devices are told, and who took part how often. A
//! coordinator runs for years, and its tasks come and go.

use super::Task;
use super::selection::Selection;
use crate::optimizer::OptimizerState;

impl Task {
    /// Lets go of what only a further version would need, where the task is over: parameters, what the optimizer carries on,
    /// who had a place. To be called once everything that was decided is durable; a task that goes on keeps all of it.
    pub fn let_go(&mut self) {
        if !self.record.state.is_over() || !self.effects.is_empty() {
            return;
        }
        let round = &self.plan.round;
        self.selection = Selection::new(round.most_devices() as usize, round.join_millis, self.devices());
        self.funnels.end();
        (self.record.adapter, self.record.folded, self.record.before) = (Vec::new(), None, None);
        self.record.optimizer = OptimizerState::default();
        self.given = None;
        self.classes.clear();
        self.version_is_over();
    }
}
