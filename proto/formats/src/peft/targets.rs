//! Which modules a PEFT configuration means, as PEFT finds them: it leaves out the tensors of all others.

use regex::Regex;
use serde_json::{Map, Value};

/// Layers by the names that a configuration gives.
enum Names {
    /// Those that an expression matches as a whole.
    Expression(Regex),
    /// Those that are, or end in, one of these.
    Ends(Vec<String>),
}

impl Names {
    /// `None` where all are meant, or where it is not known which.
    fn of(value: Option<&Value>) -> Option<Self> {
        match value? {
            Value::String(all) if all == "all-linear" => None,
            Value::String(expression) => {
                Regex::new(&format!("^(?:{expression})$")).ok().map(Self::Expression)
            }
            Value::Array(ends) => {
                let ends = ends.iter().filter_map(Value::as_str).map(str::to_owned).collect();
                Some(Self::Ends(ends))
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
        }
    }

    fn has(&self, module: &str) -> bool {
        let ends = |end: &String| {
            module.strip_suffix(end.as_str()).is_some_and(|before| before.is_empty() || before.ends_with('.'))
        };
        match self {
            Self::Expression(expression) => expression.is_match(module),
            Self::Ends(all) => all.iter().any(ends),
        }
    }
}

/// The first setting by which PEFT leaves out a module that is in the file.
pub(super) fn leaving_out(settings: &Map<String, Value>, module: &str) -> Option<&'static str> {
    if Names::of(settings.get("exclude_modules")).is_some_and(|excluded| excluded.has(module)) {
        return Some("exclude_modules");
    }
    let targets = Names::of(settings.get("target_modules"))?;
    if !targets.has(module) {
        return Some("target_modules");
    }
    // PEFT asks for the block only where the targets are a list.
    let is_list = matches!(targets, Names::Ends(_));
    let blocks =
        numbers(settings.get("layers_to_transform")).filter(|blocks| is_list && !blocks.is_empty())?;
    let is_meant = block(settings.get("layers_pattern"), module).is_some_and(|block| blocks.contains(&block));
    (!is_meant).then_some("layers_to_transform")
}

fn numbers(value: Option<&Value>) -> Option<Vec<u64>> {
    match value? {
        Value::Array(all) => Some(all.iter().filter_map(Value::as_u64).collect()),
        Value::Number(one) => one.as_u64().map(|one| vec![one]),
        Value::Null | Value::Bool(_) | Value::String(_) | Value::Object(_) => None,
    }
}

/// The number of a module's block: the last one behind one of the names of the pattern, or behind any name.
fn block(pattern: Option<&Value>, module: &str) -> Option<u64> {
    let named: Vec<&str> = match pattern {
        Some(Value::String(one)) if !one.is_empty() => vec![one],
        Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).collect(),
        Some(_) | None => Vec::new(),
    };
    let parts: Vec<&str> = module.split('.').collect();
    let fits = |name: &str| named.is_empty() || named.contains(&name);
    parts.windows(2).rev().filter(|pair| fits(pair[0])).find_map(|pair| pair[1].parse().ok())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_module_is_left_out_by_the_setting_that_peft_leaves_it_out_by() {
        let module = "model.layers.1.self_attn.q_proj";
        for (settings, expected) in [
            (json!({}), None),
            (json!({"target_modules": null}), None),
            (json!({"target_modules": ["q_proj"]}), None),
            (json!({"target_modules": ["self_attn.q_proj", "x"]}), None),
            (json!({"target_modules": [module]}), None),
            (json!({"target_modules": "all-linear"}), None),
            (json!({"target_modules": r".*\.q_proj"}), None),
            (json!({"target_modules": "(?=q)q_proj"}), None),
            (json!({"target_modules": ["v_proj"]}), Some("target_modules")),
            (json!({"target_modules": ["_proj"]}), Some("target_modules")),
            (json!({"target_modules": "q_proj"}), Some("target_modules")),
            (
                json!({"target_modules": ["q_proj"], "exclude_modules": ["self_attn.q_proj"]}),
                Some("exclude_modules"),
            ),
            (json!({"target_modules": ["q_proj"], "exclude_modules": "model.layers.0.*"}), None),
            (json!({"target_modules": ["q_proj"], "layers_to_transform": [0, 1]}), None),
            (
                json!({"target_modules": ["q_proj"], "layers_to_transform": 1, "layers_pattern": "layers"}),
                None,
            ),
            (json!({"target_modules": ["q_proj"], "layers_to_transform": [0]}), Some("layers_to_transform")),
            (
                json!({"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": ["blocks"]}),
                Some("layers_to_transform"),
            ),
            (json!({"target_modules": r".*\.q_proj", "layers_to_transform": [0]}), None),
        ] {
            assert_eq!(leaving_out(settings.as_object().unwrap(), module), expected, "{settings}");
        }
    }
}
