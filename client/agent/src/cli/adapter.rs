//! The options of every command that trains or uses an adapter on this machine alone.

use clap::{Args, ValueEnum};
use proto::adapter::{AdapterError, AdapterSpec, Factors, Method};

use crate::config::Dtype;
use crate::config::cores;
use engine::{Base, Compute, DeviceError, DeviceRequest, Projection, Recompute};

/// The adapter's shape.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Adapter")]
pub(super) struct AdapterArgs {
    /// Rank of the adapter
    #[arg(long, default_value_t = 8)]
    rank: u32,
    /// The adapter's product is scaled by alpha / rank; twice the rank where left out
    #[arg(long)]
    alpha: Option<f32>,
    /// Layers to adapt, separated by commas: projections such as `q_proj`, `all` (or `all-linear`), or patterns of whole names with
    /// `*`, such as `model.layers.1*.mlp.*`
    #[arg(long, default_value = "all", value_delimiter = ',')]
    targets: Vec<String>,
    /// Only blocks from this on, counted from 0, …
    #[arg(long, default_value_t = 0, value_name = "BLOCK")]
    first_layer: usize,
    /// … up to this one
    #[arg(long, value_name = "BLOCK")]
    last_layer: Option<usize>,
    /// What is trained: both factors, only B, or only a matrix between frozen factors
    #[arg(long, value_enum, default_value_t = MethodArg::Both)]
    method: MethodArg,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum MethodArg {
    Both,
    FrozenA,
    Core,
}

/// How to compute.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Computing")]
pub(super) struct ComputeArgs {
    /// Threads to use; all cores where left out
    #[arg(long)]
    threads: Option<usize>,
    /// In what numbers products with the base are computed: f32; bf16 or finer; int8 on the way back, with gradients
    /// about as fine as PyTorch's in bf16; or what suits base and CPU, which is one of the first two
    #[arg(long, value_enum, default_value_t = Dtype::Auto)]
    pub(super) dtype: Dtype,
    /// Compute blocks again on the way back: a third more time, much less memory
    #[arg(long)]
    recompute: bool,
    /// Where to compute: `cpu` with our own kernels, `candle` on the CPU with candle's (a vendor's where this was built
    /// with mkl or accelerate), a GPU as `cuda[:N]` or `metal[:N]`; `auto` is a GPU that this was built for and that
    /// opens, else `cpu`
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    device: DeviceRequest,
}

/// Layers that were asked for and are not there.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(super) enum TargetError {
    /// Nothing of the base has such a name.
    #[error(
        "`{target}` names no layer of this base; use q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj, all, or a pattern such as model.layers.0.*"
    )]
    NoSuchTarget {
        /// What was asked for.
        target: String,
    },
    /// The range of blocks is empty.
    #[error("the base has blocks 0 to {most}, asked for {first} to {last}")]
    Layers {
        /// The first asked for.
        first: usize,
        /// The last asked for.
        last: usize,
        /// The last there is.
        most: usize,
    },
    /// The shape cannot exist.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
}

impl AdapterArgs {
    /// The adapter of this shape for `base`.
    pub(super) fn spec(&self, base: &Base, factors: Factors) -> Result<AdapterSpec, TargetError> {
        let most = base.config().num_layers - 1;
        let (first, last) = (self.first_layer, self.last_layer.unwrap_or(most));
        if first > last || last > most {
            return Err(TargetError::Layers { first, last, most });
        }
        let all = base.modules(&Projection::ALL);
        let in_range = |at: usize| (first..=last).contains(&(at / Projection::ALL.len()));
        let mut wanted = vec![false; all.len()];
        for target in &self.targets {
            let mut any = false;
            for (at, module) in all.iter().enumerate() {
                let projection = Projection::ALL[at % Projection::ALL.len()];
                if matches!(target.as_str(), "all" | "all-linear")
                    || target.parse() == Ok(projection)
                    || (target.contains(['*', '.']) && matches(target, &module.name))
                {
                    any = true;
                    wanted[at] = true;
                }
            }
            if !any {
                return Err(TargetError::NoSuchTarget { target: target.clone() });
            }
        }
        let modules = all.into_iter().enumerate().filter(|(at, _)| wanted[*at] && in_range(*at));
        let spec = AdapterSpec {
            method: match self.method {
                MethodArg::Both => Method::Both,
                MethodArg::FrozenA => Method::FrozenA,
                MethodArg::Core => Method::Core,
            },
            rank: self.rank,
            alpha: self.alpha.unwrap_or(2.0 * self.rank as f32),
            factors,
            modules: modules.map(|(_, module)| module).collect(),
        };
        spec.check_local()?;
        Ok(spec)
    }
}

/// Whether a pattern with `*` for any characters is the whole of `name`.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((before, after)) => name.strip_prefix(before).is_some_and(|rest| {
            (0..=rest.len()).any(|at| rest.is_char_boundary(at) && matches(after, &rest[at..]))
        }),
    }
}

impl ComputeArgs {
    /// Fails where the device that was asked for is not there.
    pub(super) fn compute(self) -> Result<Compute, DeviceError> {
        Ok(Compute {
            threads: self.threads.unwrap_or_else(cores).max(1),
            precision: self.dtype.precision(),
            recompute: if self.recompute { Recompute::Blocks } else { Recompute::Never },
            backend: self.device.resolve()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_of_the_whole_name() {
        assert!(matches("model.layers.1*.mlp.*", "model.layers.12.mlp.up_proj"));
        assert!(!matches("model.layers.1*.mlp.*", "model.layers.2.mlp.up_proj"));
        assert!(!matches("model.layers.1", "model.layers.1.mlp.up_proj"));
        assert!(matches("*", "x") && matches("*q*", "q") && !matches("*q", "qx"));
    }
}
