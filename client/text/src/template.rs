//! A base's chat template: a Jinja text that turns a conversation into what the base was trained to read.
//!
//! The templates are written for Python's Jinja with the settings and functions that the transformers library gives
//! them: `trim_blocks` and `lstrip_blocks`, loop controls, `raise_exception`, `strftime_now`, a `tojson` that does not
//! escape, Python's methods of strings and dictionaries, and `{% generation %}`, which marks and prints nothing. All of
//! that is here. A template sees the messages, the tools and the names of two tokens, and no clock: `strftime_now` tells the day
//! [`DAY`], so that a conversation is the same text whenever it is trained on.
//!
//! A template comes from a hub, so all that it may do to a device is bounded: its length and how deep it is nested
//! before it is parsed, the instructions of a rendering, and the bytes that a rendering makes and reads. What it may
//! call is a closed list.

mod budget;
mod day;
mod functions;
mod json;
mod program;
mod syntax;

use std::collections::BTreeMap;
use std::error::Error as _;

use minijinja::machinery::{eval, make_string_output};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{AutoEscape, Environment, Error, ErrorKind};
use proto::shown::shown;

pub use day::DAY;

use crate::{Message, Role, Tools};
use budget::Budget;
use engine::base::Tokens;
use engine::guarded::Stopped;
use program::Program;

/// Instructions that one rendering may take; a conversation of a thousand turns takes some 100,000.
const FUEL: u64 = 20_000_000;

/// Loops within loops and, four times each, calls within calls: deeper ones overflow a thread's stack.
const MOST_CALLS: usize = 200;

/// What a conversation becomes where the base has no template: a line for each turn, the assistant's with the base's
/// last token, if it has one.
const PLAIN: &str = "{% for message in messages %}{{ message.role }}: {{ message.content }}\
    {{ eos_token if message.role == 'assistant' }}\n{% endfor %}{{ 'assistant:' if add_generation_prompt }}";

/// A template that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// It is no Jinja template.
    #[error("the chat template cannot be read at line {line}: {reason}")]
    Syntax {
        /// The line.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// It is longer, or nested deeper, than any template has to be, or computes what no template has to.
    #[error("the chat template cannot be used: {reason}")]
    Unbounded {
        /// In what.
        reason: String,
    },
    /// It fails on a conversation of a few words.
    #[error("the chat template fails at line {line}: {reason}")]
    Fails {
        /// The line.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// It refuses every one of a few short conversations.
    #[error("the chat template refuses any conversation: {reason}")]
    Refuses {
        /// What it says.
        reason: String,
    },
    /// What the assistant says is not in what it makes.
    #[error("the chat template leaves out what the assistant says")]
    Silent,
}

/// A template that cannot render this conversation. It does not say why: the reason may hold the user's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the chat template refuses the conversation at line {line}")]
pub struct Refusal {
    /// The line of the template.
    pub line: usize,
}

/// Whether a rendering ends with what opens the assistant's next turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GenerationPrompt {
    /// It does.
    Added,
    /// It ends with the last message.
    LeftOut,
}

/// A template that renders at least one kind of short conversation.
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    bos: Option<String>,
    eos: Option<String>,
}

impl ChatTemplate {
    /// Reads a template; `bos` and `eos` are what it finds under `bos_token` and `eos_token`.
    ///
    /// Fails for one that cannot be read, or that does not render a few words of a user and an assistant.
    pub fn new(source: &str, bos: Option<&str>, eos: Option<&str>) -> Result<Self, TemplateError> {
        let syntax = |error: Error| match line(&error) {
            0 => TemplateError::Unbounded { reason: reason(&error) },
            line => TemplateError::Syntax { line, reason: reason(&error) },
        };
        let (bos, eos) = (bos.map(str::to_owned), eos.map(str::to_owned));
        let template = Self { environment: environment(), source: without_marks(source), bos, eos };
        guarded(|| Program::compile(NAME, &template.source, syntax_config()?).map(drop)).map_err(syntax)?;
        template.check()?;
        Ok(template)
    }

    /// The template of a base, else [`ChatTemplate::plain`] with its tokens; fails as [`ChatTemplate::new`] does.
    pub fn of(tokens: &Tokens) -> Result<Self, TemplateError> {
        let (bos, eos) = (tokens.bos_token(), tokens.eos_token());
        match tokens.chat_template() {
            Some(source) => Self::new(source, bos, eos),
            None => Self::plain(bos, eos),
        }
    }

    /// What stands in where a base has no template: `role: what is said`, a line for each turn.
    pub fn plain(bos: Option<&str>, eos: Option<&str>) -> Result<Self, TemplateError> {
        Self::new(PLAIN, bos, eos)
    }

    /// The text of turns, of which the template is told the tools. Fails for what the template does not take, such as
    /// a conversation that begins with the assistant.
    pub fn render(
        &self,
        messages: &[Message],
        tools: &Tools,
        prompt: GenerationPrompt,
    ) -> Result<String, Refusal> {
        self.try_render(messages, tools, prompt).map_err(|error| Refusal { line: line(&error) })
    }

    fn try_render(
        &self,
        messages: &[Message],
        tools: &Tools,
        prompt: GenerationPrompt,
    ) -> Result<String, Error> {
        // Where there are no tools, templates are told of none.
        let described = Some(&tools.0).filter(|tools| !tools.is_empty());
        let mut context: BTreeMap<&str, Value> = BTreeMap::from([
            ("messages", messages.iter().map(turn).collect()),
            ("add_generation_prompt", Value::from(prompt == GenerationPrompt::Added)),
            ("tools", described.map_or_else(|| Value::from(()), |tools| Value::from(Serde(tools)))),
            ("documents", Value::from(())),
        ]);
        // A token that the base does not have is undefined, as it is for transformers.
        context.extend(self.bos.as_deref().map(|token| ("bos_token", Value::from(token))));
        context.extend(self.eos.as_deref().map(|token| ("eos_token", Value::from(token))));
        let bytes: usize = messages.iter().map(|message| message.len() + budget::MESSAGE_BYTES).sum();
        let of_tools: usize = tools.0.iter().map(|tool| tool.to_string().len()).sum();
        context.insert(budget::NAME, Value::from_object(Budget::new(bytes + of_tools)));
        let root = Value::from_pairs(context);
        guarded(|| {
            let Program { main, blocks } = Program::compile(NAME, &self.source, syntax_config()?)?;
            let mut text = String::new();
            let out = &mut make_string_output(&mut text);
            eval(&self.environment, &main, root, &blocks, out, AutoEscape::None)?;
            Ok(text)
        })
    }

    /// Renders short conversations that hold nobody's text, so that errors can be told in full.
    fn check(&self) -> Result<(), TemplateError> {
        let say = |role, word: &str| Message::new(role, word);
        let (user, assistant) = (say(Role::User, "question"), say(Role::Assistant, ANSWER));
        let system = say(Role::System, "setting");
        let probes = [
            vec![user.clone(), assistant.clone()],
            vec![system, user.clone(), assistant.clone()],
            vec![user.clone(), assistant.clone(), user, assistant],
        ];
        let (mut refused, mut shown, mut rendered) = (None, false, false);
        for probe in &probes {
            match self.try_render(probe, &Tools::default(), GenerationPrompt::LeftOut) {
                Ok(text) => (rendered, shown) = (true, shown || text.contains(ANSWER)),
                Err(error) if is_refusal(&error) => refused = Some(reason(&error)),
                Err(error) => {
                    return Err(TemplateError::Fails { line: line(&error), reason: reason(&error) });
                }
            }
        }
        match refused {
            Some(reason) if !rendered => Err(TemplateError::Refuses { reason }),
            Some(_) | None if !shown => Err(TemplateError::Silent),
            Some(_) | None => Ok(()),
        }
    }
}

/// A turn as templates take it: what it does not have is not there.
fn turn(message: &Message) -> Value {
    let mut pairs =
        vec![("role", Value::from(message.role.name())), ("content", Value::from(message.content.as_str()))];
    let texts = [("name", message.name.as_deref()), ("tool_call_id", message.call_id.as_deref())];
    pairs.extend(texts.into_iter().filter_map(|(key, text)| Some((key, Value::from(text?)))));
    if !message.reasoning.is_empty() {
        pairs.push(("reasoning_content", Value::from(message.reasoning.as_str())));
    }
    if !message.calls.is_empty() {
        pairs.push(("tool_calls", Value::from(Serde(&message.calls))));
    }
    Value::from_pairs(pairs)
}

/// The template's name in its environment.
const NAME: &str = "chat template";

/// What the assistant says when a template is tried.
const ANSWER: &str = "answer";

fn environment() -> Environment<'static> {
    let mut environment = Environment::empty();
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(MOST_CALLS);
    functions::add_to(&mut environment);
    environment
}

/// Runs what is the template engine's: where it stops itself instead of failing, that is an error like others.
fn guarded<T>(run: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    engine::guarded::guarded(run).unwrap_or_else(|Stopped| {
        let reason = "the template engine stopped itself; the template asks for what it cannot do";
        Err(Error::new(ErrorKind::InvalidOperation, reason))
    })
}

fn syntax_config() -> Result<SyntaxConfig, Error> {
    SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()
}

/// That a template called `raise_exception`.
#[derive(Debug, thiserror::Error)]
#[error("the template raised an exception")]
struct Raised;

fn is_refusal(error: &Error) -> bool {
    let mut next = error.source();
    while let Some(error) = next {
        if error.is::<Raised>() {
            return true;
        }
        next = error.source();
    }
    false
}

fn line(error: &Error) -> usize {
    error.line().unwrap_or_default()
}

fn reason(error: &Error) -> String {
    error.detail().map_or_else(|| error.kind().to_string(), |detail| shown(detail).to_string())
}

/// The source with `{% generation %}` and its end as a condition that always holds: Python's Jinja is taught these
/// words by transformers.
fn without_marks(source: &str) -> String {
    let mut text = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at);
        text.push_str(before);
        let Some(end) = tag.find("%}") else {
            rest = tag;
            break;
        };
        let (tag, after) = tag.split_at(end);
        let word =
            tag.trim_start_matches("{%").trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+');
        match word {
            "generation" => text.push_str(&tag.replacen("generation", "if true", 1)),
            "endgeneration" => text.push_str(&tag.replacen("endgeneration", "endif", 1)),
            _ => text.push_str(tag),
        }
        rest = after;
    }
    text.push_str(rest);
    text
}

#[cfg(test)]
pub(crate) mod tests;
