use serde::Deserialize;

use super::*;

/// What transformers makes of a conversation; written by `client/tests/reference/chat/make_chats.py`.
#[derive(Deserialize)]
struct Case {
    template: String,
    bos: String,
    eos: String,
    chat: String,
    messages: Vec<(String, String)>,
    text: String,
    prompt: String,
}

fn say(role: Role, content: &str) -> Message {
    Message { role, content: content.to_owned() }
}

fn pair() -> [Message; 2] {
    [say(Role::User, "rosebud"), say(Role::Assistant, "sled")]
}

fn rendered(source: &str) -> String {
    let template = ChatTemplate::new(source, Some("<s>"), Some("</s>")).unwrap();
    template.render(&pair(), GenerationPrompt::LeftOut).unwrap()
}

fn refused(source: &str) -> String {
    ChatTemplate::new(source, None, None).unwrap_err().to_string()
}

/// The template of that name among the references.
pub(crate) fn reference(name: &str, bos: &str, eos: &str) -> ChatTemplate {
    let source = match name {
        "chatml" => include_str!("../../../tests/reference/chat/chatml.jinja"),
        "llama3" => include_str!("../../../tests/reference/chat/llama3.jinja"),
        "mistral" => include_str!("../../../tests/reference/chat/mistral.jinja"),
        _ => include_str!("../../../tests/reference/chat/zephyr.jinja"),
    };
    ChatTemplate::new(source, Some(bos), Some(eos)).unwrap()
}

#[test]
fn conversations_are_rendered_as_transformers_renders_them() {
    let cases = include_str!("../../../tests/reference/chat/chats.json");
    let cases: Vec<Case> = serde_json::from_str(cases).unwrap();
    assert_eq!(cases.len(), 12);
    for case in cases {
        let role = |name: &str| match name {
            "system" => Role::System,
            "user" => Role::User,
            _ => Role::Assistant,
        };
        let messages: Vec<Message> =
            case.messages.iter().map(|(name, content)| say(role(name), content)).collect();
        let template = reference(&case.template, &case.bos, &case.eos);
        let name = format!("{} {}", case.template, case.chat);
        assert_eq!(template.render(&messages, GenerationPrompt::LeftOut), Ok(case.text), "{name}");
        assert_eq!(template.render(&messages, GenerationPrompt::Added), Ok(case.prompt), "{name}");
    }
}

#[test]
fn python_s_methods_and_transformers_functions_are_there() {
    for (expression, expected) in [
        ("messages[0].content.strip().upper()", "ROSEBUD"),
        ("messages[0]['content'].split('b')[0]", "rose"),
        ("messages[0].content.startswith('rose')", "True"),
        ("messages[0].get('name', 'nobody')", "nobody"),
        ("messages[::-1][0].role", "assistant"),
        ("{'a': ['<ü', 1]} | tojson", r#"{"a": ["<ü", 1]}"#),
        ("[1, 2] | tojson(indent=2)", "[\n  1,\n  2\n]"),
        ("strftime_now('%d %b %Y')", "26 Jul 2024"),
        ("bos_token + eos_token", "<s></s>"),
        ("(tools is none) ~ (documents is none) ~ (nothing is defined)", "TrueTrueFalse"),
    ] {
        assert_eq!(
            rendered(&format!("{{{{ {expression} }}}}|{{{{ messages[1].content }}}}")),
            format!("{expected}|sled")
        );
    }
    let loops = "{% set ns = namespace(n=0) %}{% for m in messages %}{% if m.role == 'user' %}{% continue %}{% endif %}\
                 {% set ns.n = ns.n + 1 %}{{ m.content }}{% break %}{% endfor %}{{ ns.n }}";
    assert_eq!(rendered(loops), "sled1");
}

#[test]
fn blocks_take_their_line_with_them() {
    let source =
        "  {% for m in messages %}\n    {% if true %}\n{{ m.content }}\n    {% endif %}\n{% endfor %}\nend\n";
    assert_eq!(rendered(source), "rosebud\nsled\nend");
}

#[test]
fn marks_for_the_generated_part_print_nothing_and_keep_their_space_control() {
    let source =
        "{% for m in messages -%}\n{%- generation -%} {{ m.content }} {%- endgeneration %}\n{% endfor %}";
    assert_eq!(rendered(source), "rosebudsled");
    assert_eq!(
        rendered("{{ messages[1].content }}{% raw %}{% generation {% endraw %}"),
        "sled{% generation "
    );
}

#[test]
fn a_template_that_cannot_work_is_told_by_line_when_it_is_read() {
    assert!(refused("a\n{% if %}").starts_with("the chat template cannot be read at line 2: "));
    let unknown = refused("\n\n{{ messages[1].content }}{{ nothing_of_that_name() }}");
    assert!(unknown.starts_with("the chat template fails at line 3: "), "{unknown}");
    assert!(unknown.contains("nothing_of_that_name"), "{unknown}");
    let format = refused("{{ strftime_now('%Q') }}");
    assert!(format.ends_with("strftime_now does not know `%Q`"), "{format}");
    assert_eq!(refused("hello"), "the chat template leaves out what the assistant says");
    let never = refused("{{ raise_exception('not today') }}");
    assert_eq!(never, "the chat template refuses any conversation: not today");
    let endless = refused("{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}");
    assert!(endless.contains("fuel"), "{endless}");
    let other = refused("{% include 'elsewhere' %}");
    assert!(other.contains("elsewhere"), "{other}");
}

#[test]
fn a_refusal_holds_no_text() {
    let source = "{% for m in messages %}\n{% if m.content == 'rosebud' %}{{ raise_exception(m.content) }}{% endif %}\
                  {{ m.content }}{% endfor %}";
    let template = ChatTemplate::new(source, None, None).unwrap();
    let refusal = template.render(&pair(), GenerationPrompt::LeftOut).unwrap_err();
    assert_eq!(refusal.to_string(), "the chat template refuses the conversation at line 2");
    assert_eq!(format!("{refusal:?}"), "Refusal { line: 2 }");
}

#[test]
fn without_a_template_a_turn_is_a_line() {
    let plain = ChatTemplate::plain(None, Some("</s>")).unwrap();
    let text = plain.render(&pair(), GenerationPrompt::LeftOut).unwrap();
    assert_eq!(text, "user: rosebud\nassistant: sled</s>\n");
    let text = plain.render(&pair()[..1], GenerationPrompt::Added).unwrap();
    assert_eq!(text, "user: rosebud\nassistant:");
    let endless = ChatTemplate::plain(None, None).unwrap();
    assert_eq!(
        endless.render(&pair(), GenerationPrompt::LeftOut).unwrap(),
        "user: rosebud\nassistant: sled\n"
    );
}
