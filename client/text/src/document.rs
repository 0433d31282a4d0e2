//! What is trained on, one piece at a time, and what makes two pieces the same.

use std::borrow::Cow;
use std::fmt;

use crate::json::Json;
use proto::ids::Digest;

/// Who speaks in a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Whoever set the conversation up.
    System,
    /// The person.
    User,
    /// The model: what is learned.
    Assistant,
    /// What a tool gave back to the model.
    Tool,
}

impl Role {
    /// The word that chat templates know it by.
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}

/// One turn of a conversation. Its `Debug` shows no text.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: String,
    /// What was thought before it was said; empty where that is not told apart from the content.
    pub reasoning: String,
    /// The tools that are called, each as chat templates take it: `{"type": "function", "function": {"name",
    /// "arguments"}}`.
    pub calls: Vec<Json>,
    /// The name of the tool that gave this back, where it is told.
    pub name: Option<String>,
    /// Which call this is the answer to, where it is told.
    pub call_id: Option<String>,
    /// Whether it is learned; never where the role is not the assistant's.
    pub learned: bool,
}

impl Message {
    /// A turn of words alone; learned if it is the assistant's.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        let learned = role == Role::Assistant;
        let (content, reasoning, calls) = (content.into(), String::new(), Vec::new());
        Self { role, content, reasoning, calls, name: None, call_id: None, learned }
    }

    /// Its texts, each with a byte for what it is.
    fn parts(&self) -> Vec<(u8, Cow<'_, str>)> {
        let mut parts = vec![(self.tag(), Cow::Borrowed(&*self.content))];
        parts.extend((!self.reasoning.is_empty()).then_some((b'r', Cow::Borrowed(&*self.reasoning))));
        parts.extend(self.calls.iter().map(|call| (b'c', Cow::Owned(call.to_string()))));
        let told = [&self.name, &self.call_id].into_iter().flatten();
        parts.extend(told.map(|text| (b'i', Cow::Borrowed(text.as_str()))));
        parts
    }

    fn tag(&self) -> u8 {
        match self.role {
            Role::System => b's',
            Role::User => b'u',
            Role::Assistant if self.learned => b'a',
            Role::Assistant => b'g',
            Role::Tool => b't',
        }
    }

    /// Bytes of text in it.
    pub(super) fn len(&self) -> usize {
        self.parts().iter().map(|(_, text)| text.len()).sum()
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Message({}, {} bytes)", self.role.name(), self.len())
    }
}

/// Turns, and the tools that the model may call in them. Its `Debug` shows no text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conversation {
    /// The turns; what the assistant says in those that are to be learned is learned.
    pub messages: Vec<Message>,
    /// What the model is told of its tools, as chat templates take it; empty where it has none.
    pub tools: Tools,
}

/// Descriptions of tools, each a JSON object. Their `Debug` shows no text.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Tools(pub Vec<Json>);

impl fmt::Debug for Tools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tools({})", self.0.len())
    }
}

impl Conversation {
    /// Turns without tools.
    pub fn of(messages: Vec<Message>) -> Self {
        Self { messages, tools: Tools::default() }
    }

    /// Its texts, each with a byte for what it is.
    pub(super) fn parts(&self) -> Vec<(u8, Cow<'_, str>)> {
        let tools = self.tools.0.iter().map(|tool| (b'd', Cow::Owned(tool.to_string())));
        tools.chain(self.messages.iter().flat_map(Message::parts)).collect()
    }
}

/// A piece of text that stands for itself. Its `Debug` shows no text.
#[derive(Clone, PartialEq, Eq)]
pub enum Document {
    /// Text without roles; all of it is learned.
    Plain(String),
    /// A text and how it goes on; the second part is learned.
    Completion {
        /// What is given.
        prompt: String,
        /// What is learned.
        completion: String,
    },
    /// Turns; what the assistant says is learned.
    Conversation(Conversation),
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, len) = match self {
            Self::Plain(_) => ("Plain", self.len()),
            Self::Completion { .. } => ("Completion", self.len()),
            Self::Conversation(_) => ("Conversation", self.len()),
        };
        write!(f, "{name}({len} bytes)")
    }
}

impl Document {
    /// Bytes of text in it.
    pub(super) fn len(&self) -> usize {
        self.parts().into_iter().map(|(_, text)| text.len()).sum()
    }

    /// Whether it is turns.
    pub(super) fn has_turns(&self) -> bool {
        match self {
            Self::Plain(_) | Self::Completion { .. } => false,
            Self::Conversation(_) => true,
        }
    }

    /// Whether only a part of it is learned.
    pub fn has_roles(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Completion { .. } | Self::Conversation(_) => true,
        }
    }

    /// Its texts, each with a byte for what it is.
    pub(super) fn parts(&self) -> Vec<(u8, Cow<'_, str>)> {
        match self {
            Self::Plain(text) => vec![(b'p', Cow::Borrowed(text))],
            Self::Completion { prompt, completion } => {
                vec![(b'u', Cow::Borrowed(prompt)), (b'a', Cow::Borrowed(completion))]
            }
            Self::Conversation(conversation) => conversation.parts(),
        }
    }

    /// What it is known by: SHA-256 over `nightshift document v1` and then, for each part, a byte for what it is
    /// and its words, each with a byte after it that no text has.
    ///
    /// Space between words does not count, so that a copy with other line ends or indentation is the same
    /// document: it is no second one, and it is held out where the first is.
    pub(super) fn digest(&self) -> Digest {
        let mut bytes = Vec::with_capacity(self.len() + 64);
        bytes.extend_from_slice(b"nightshift document v1");
        for (tag, text) in self.parts() {
            bytes.extend_from_slice(&[0xfe, tag]);
            for word in text.split_whitespace() {
                bytes.extend_from_slice(word.as_bytes());
                bytes.push(0xff);
            }
        }
        Digest::of(&bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_the_same_up_to_white_space_and_nothing_else() {
        let plain = |text: &str| Document::Plain(text.to_owned()).digest();
        assert_eq!(plain("a b\nc"), plain("  a  b\r\n\r\n\tc \n"));
        assert_ne!(plain("a b"), plain("ab"));
        assert_ne!(plain("a b"), plain("A b"));
        let pair = |prompt: &str, completion: &str| {
            Document::Completion { prompt: prompt.to_owned(), completion: completion.to_owned() }.digest()
        };
        assert_ne!(pair("a b", "c"), pair("a", "b c"));
        assert_ne!(pair("a", "b"), plain("a b"));
    }

    #[test]
    fn what_is_learned_thought_and_called_makes_another_document() {
        let turn = || Message::new(Role::Assistant, "a");
        let digest = |message: Message| Document::Conversation(Conversation::of(vec![message])).digest();
        let call = Json::object([("function", Json::text("lamp"))]);
        let others = [
            turn(),
            Message { learned: false, ..turn() },
            Message { reasoning: "r".to_owned(), ..turn() },
            Message { calls: vec![call], ..turn() },
            Message { role: Role::Tool, learned: false, ..turn() },
        ];
        let digests: std::collections::BTreeSet<Digest> = others.into_iter().map(digest).collect();
        assert_eq!(digests.len(), 5);
    }

    #[test]
    fn no_debug_shows_text() {
        let message = Message::new(Role::User, "rosebud");
        assert_eq!(format!("{message:?}"), "Message(user, 7 bytes)");
        let tools = Tools(vec![Json::text("rosebud")]);
        let conversation = Conversation { messages: vec![message], tools };
        assert!(!format!("{conversation:?}").contains("rosebud"));
        assert_eq!(format!("{:?}", Document::Conversation(conversation)), "Conversation(16 bytes)");
        assert_eq!(format!("{:?}", Document::Plain("rosebud".to_owned())), "Plain(7 bytes)");
    }
}
