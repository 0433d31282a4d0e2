//! What is trained on, one piece at a time, and what makes two pieces the same.

use std::fmt;

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
}

impl Role {
    /// The word that chat templates know it by.
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
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
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Message({}, {} bytes)", self.role.name(), self.content.len())
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
    Conversation(Vec<Message>),
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

    /// Whether only a part of it is learned.
    pub fn has_roles(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Completion { .. } | Self::Conversation(_) => true,
        }
    }

    /// Its texts, each with a byte for its role.
    pub(super) fn parts(&self) -> Vec<(u8, &str)> {
        match self {
            Self::Plain(text) => vec![(b'p', text)],
            Self::Completion { prompt, completion } => vec![(b'u', prompt), (b'a', completion)],
            Self::Conversation(messages) => messages.iter().map(|m| (tag(m.role), &*m.content)).collect(),
        }
    }

    /// What it is known by: SHA-256 over `nightshift document v1` and then, for each part, a byte for its role
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

fn tag(role: Role) -> u8 {
    match role {
        Role::System => b's',
        Role::User => b'u',
        Role::Assistant => b'a',
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
    fn no_debug_shows_text() {
        let message = Message { role: Role::User, content: "rosebud".to_owned() };
        assert_eq!(format!("{message:?}"), "Message(user, 7 bytes)");
        assert_eq!(format!("{:?}", Document::Conversation(vec![message])), "Conversation(7 bytes)");
        assert_eq!(format!("{:?}", Document::Plain("rosebud".to_owned())), "Plain(7 bytes)");
    }
}
