//! The families of decoders that are known, by the names that a Hugging Face `config.json` has for them.

/// A family of decoders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Llama, SmolLM2 and others of their shape.
    Llama,
    /// Mistral.
    Mistral,
    /// Qwen2 and Qwen2.5.
    Qwen2,
    /// Qwen3.
    Qwen3,
    /// The text models of Gemma 3.
    Gemma3,
}

/// Why a config names no family that is known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FamilyError {
    /// Another architecture.
    #[error("unknown architecture `{0}`; known are {KNOWN}")]
    Unknown(String),
    /// No architecture, and another type of model.
    #[error("unknown `model_type` `{0}` and no `architectures`; known are {KNOWN_TYPES}")]
    UnknownType(String),
    /// Neither of the two keys that could name it.
    #[error("neither `architectures` nor `model_type` is there; known are {KNOWN}")]
    Unnamed,
    /// The two keys name two families.
    #[error(
        "`architectures` names {architecture} and `model_type` {model_type}, which are two kinds of decoder"
    )]
    Two {
        /// The first architecture.
        architecture: String,
        /// The type.
        model_type: String,
    },
}

/// The architectures that are known.
const KNOWN: &str =
    "LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM, Gemma3ForCausalLM";

/// The types of models that are known.
const KNOWN_TYPES: &str = "llama, mistral, qwen2, qwen3, gemma3_text";

impl Family {
    /// The family of a config, by its first architecture and its `model_type`; fails where they name none, or two.
    ///
    /// Where there is no architecture, or one that is saved without its head (`LlamaModel`), the type is enough.
    pub fn of(architecture: Option<&str>, model_type: Option<&str>) -> Result<Self, FamilyError> {
        let typed =
            model_type.and_then(|name| Self::ALL.into_iter().find(|family| family.model_type() == name));
        let Some(architecture) = architecture else {
            return typed.ok_or_else(|| match model_type {
                Some(name) => FamilyError::UnknownType(name.to_owned()),
                None => FamilyError::Unnamed,
            });
        };
        let is = |family: &Self| {
            let name =
                architecture.strip_suffix("ForCausalLM").or_else(|| architecture.strip_suffix("Model"));
            name.is_some_and(|name| family.class_names().iter().any(|known| name.eq_ignore_ascii_case(known)))
        };
        let named =
            Self::ALL.into_iter().find(is).ok_or_else(|| FamilyError::Unknown(architecture.to_owned()))?;
        match (typed, model_type) {
            (Some(typed), Some(model_type)) if typed != named => {
                let (architecture, model_type) = (architecture.to_owned(), model_type.to_owned());
                Err(FamilyError::Two { architecture, model_type })
            }
            (Some(_) | None, _) => Ok(named),
        }
    }

    const ALL: [Self; 5] = [Self::Llama, Self::Mistral, Self::Qwen2, Self::Qwen3, Self::Gemma3];

    /// What the names of its classes begin with, in whatever case.
    fn class_names(self) -> &'static [&'static str] {
        match self {
            Self::Llama => &["llama"],
            Self::Mistral => &["mistral"],
            Self::Qwen2 => &["qwen2"],
            Self::Qwen3 => &["qwen3"],
            Self::Gemma3 => &["gemma3", "gemma3text"],
        }
    }

    fn model_type(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Mistral => "mistral",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Gemma3 => "gemma3_text",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_key_names_the_family_and_both_must_agree() {
        for (architecture, model_type, expected) in [
            (Some("LlamaForCausalLM"), Some("llama"), Family::Llama),
            (Some("LlamaForCausalLM"), None, Family::Llama),
            (None, Some("mistral"), Family::Mistral),
            (Some("Qwen3Model"), Some("qwen3"), Family::Qwen3),
            (Some("Gemma3ForCausalLM"), Some("gemma3_text"), Family::Gemma3),
            (Some("Gemma3TextModel"), Some("gemma3_text"), Family::Gemma3),
            (None, Some("gemma3_text"), Family::Gemma3),
            // Names of types that are newer than we are change nothing.
            (Some("Qwen2ForCausalLM"), Some("qwen2_new"), Family::Qwen2),
        ] {
            assert_eq!(Family::of(architecture, model_type), Ok(expected));
        }
        for (architecture, model_type, expected) in [
            (None, None, "neither `architectures` nor `model_type` is there; known are Llama"),
            (None, Some("gemma3"), "unknown `model_type` `gemma3` and no `architectures`; known are llama, "),
            (
                Some("Gemma3ForConditionalGeneration"),
                Some("gemma3"),
                "unknown architecture `Gemma3ForConditionalGeneration`; known are ",
            ),
            (
                Some("LlamaForSequenceClassification"),
                Some("llama"),
                "unknown architecture `LlamaForSequenceClassification`",
            ),
            (
                Some("Qwen2ForCausalLM"),
                Some("llama"),
                "`architectures` names Qwen2ForCausalLM and `model_type` llama",
            ),
        ] {
            let error = Family::of(architecture, model_type).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
