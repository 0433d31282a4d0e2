use serde::Deserialize;

use super::*;

/// What transformers makes of a conversation; written by `client/text/tests/reference/chat/make_chats.py`.
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
    Message::new(role, content)
}

fn pair() -> [Message; 2] {
    [say(Role::User, "rosebud"), say(Role::Assistant, "sled")]
}

fn rendered(source: &str) -> String {
    let template = ChatTemplate::new(source, Some("<s>"), Some("</s>")).unwrap();
    template.render(&pair(), &Tools::default(), GenerationPrompt::LeftOut).unwrap()
}

fn refused(source: &str) -> String {
    ChatTemplate::new(source, None, None).unwrap_err().to_string()
}

/// The template of that name among the references.
pub(crate) fn reference(name: &str, bos: &str, eos: &str) -> ChatTemplate {
    let source = match name {
        "chatml" => include_str!("../../tests/reference/chat/chatml.jinja"),
        "llama3" => include_str!("../../tests/reference/chat/llama3.jinja"),
        "mistral" => include_str!("../../tests/reference/chat/mistral.jinja"),
        _ => include_str!("../../tests/reference/chat/zephyr.jinja"),
    };
    ChatTemplate::new(source, Some(bos), Some(eos)).unwrap()
}

#[test]
fn conversations_are_rendered_as_transformers_renders_them() {
    let cases = include_str!("../../tests/reference/chat/chats.json");
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
        assert_eq!(
            template.render(&messages, &Tools::default(), GenerationPrompt::LeftOut),
            Ok(case.text),
            "{name}"
        );
        assert_eq!(
            template.render(&messages, &Tools::default(), GenerationPrompt::Added),
            Ok(case.prompt),
            "{name}"
        );
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
    let endless = refused("{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}");
    assert!(endless.contains("fuel"), "{endless}");
    let other = refused("{% include 'elsewhere' %}");
    assert!(other.contains("elsewhere"), "{other}");
}

#[test]
fn a_refusal_holds_no_text() {
    let source = "{% for m in messages %}\n{% if m.content == 'rosebud' %}{{ raise_exception(m.content) }}{% endif %}\
                  {{ m.content }}{% endfor %}";
    let template = ChatTemplate::new(source, None, None).unwrap();
    let refusal = template.render(&pair(), &Tools::default(), GenerationPrompt::LeftOut).unwrap_err();
    assert_eq!(refusal.to_string(), "the chat template refuses the conversation at line 2");
    assert_eq!(format!("{refusal:?}"), "Refusal { line: 2 }");
}

#[test]
fn without_a_template_a_turn_is_a_line() {
    let plain = ChatTemplate::plain(None, Some("</s>")).unwrap();
    let text = plain.render(&pair(), &Tools::default(), GenerationPrompt::LeftOut).unwrap();
    assert_eq!(text, "user: rosebud\nassistant: sled</s>\n");
    let text = plain.render(&pair()[..1], &Tools::default(), GenerationPrompt::Added).unwrap();
    assert_eq!(text, "user: rosebud\nassistant:");
    let endless = ChatTemplate::plain(None, None).unwrap();
    assert_eq!(
        endless.render(&pair(), &Tools::default(), GenerationPrompt::LeftOut).unwrap(),
        "user: rosebud\nassistant: sled\n"
    );
}

/// What the assistant says, so that a template is not refused for its silence.
const SAID: &str = "{{ messages[1].content }}";

/// What is said of a template that makes too much.
const TOO_MUCH: &str = "it makes more text and values than a template may; make it shorter";

#[test]
fn a_template_that_is_nested_too_deep_is_refused_before_it_is_parsed() {
    for (deep, said) in [
        (format!("{{{{ {}1 }}}}", "not ".repeat(20_000)), "words and signs between one pair of braces"),
        (format!("{{{{ {}1 }}}}", "-".repeat(20_000)), "words and signs between one pair of braces"),
        (
            format!("{{{{ {}1 }}}}", "1 if 0 else ".repeat(20_000)),
            "words and signs between one pair of braces",
        ),
        (format!("{{{{ a{} }}}}", "~a".repeat(20_000)), "words and signs between one pair of braces"),
        (format!("{{{{ a{} }}}}", "|trim".repeat(20_000)), "words and signs between one pair of braces"),
        (format!("{{{{ {}1{} }}}}", "[".repeat(200), "]".repeat(200)), "brackets within brackets"),
        (format!("{{% if 0 %}}{}{{% endif %}}", "{% elif 0 %}".repeat(9000)), "words `elif`"),
        (" ".repeat(300_000), "bytes, at most 262144 are read"),
    ] {
        let error = refused(&format!("{deep}{SAID}"));
        assert!(error.starts_with("the chat template cannot be used: it has "), "{error}");
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn a_template_that_is_nested_as_deep_as_it_may_be_fits_a_thread_s_stack() {
    for deep in [
        format!("{{{{ {}1 }}}}", "not ".repeat(990)),
        format!("{{{{ {}1 }}}}", "- ".repeat(990)),
        format!("{{{{ {}1 }}}}", "1 if 0 else ".repeat(240)),
        format!("{{{{ a{} }}}}", "~a".repeat(490)),
        format!("{{{{ a{} }}}}", ".b".repeat(490)),
        format!("{{{{ 'a'{} }}}}", "|trim".repeat(490)),
        format!("{{{{ {}1{} }}}}", "[".repeat(50), "]".repeat(50)),
        format!("{{{{ {}1{} }}}}", "((not (1 if (".repeat(12), ")))) ".repeat(12)),
        format!("{{% if 0 %}}{}{{% endif %}}", "{% elif 0 %}".repeat(290)),
        format!("{}{}", "{% if 1 %}".repeat(140), "{% endif %}".repeat(140)),
        format!("{}{}", "{% for a in [1] %}".repeat(140), "{% endfor %}".repeat(140)),
    ] {
        // Fine or refused, but no overflow; some of these fail because nothing is there.
        drop(ChatTemplate::new(&format!("{deep}{SAID}"), None, None));
    }
}

#[test]
fn whatever_a_template_makes_is_bounded() {
    let grown = |start: &str, step: &str| {
        format!(
            "{{% set ns = namespace(x={start}) %}}{{% for i in range(90) %}}{{% for j in range(1000) %}}\
             {{% set ns.x = {step} %}}{{% endfor %}}{{% endfor %}}{SAID}"
        )
    };
    for (start, step) in [
        ("'xxxxxxxx'", "ns.x ~ ns.x"),
        ("'xxxxxxxx'", "ns.x + ns.x"),
        ("'xxxxxxxx'", "ns.x * 10"),
        ("'xxxxxxxx'", "10 * ns.x"),
        ("'xxxxxxxx'", "ns.x.replace('x', 'xx')"),
        ("'xxxxxxxx'", "ns.x|replace('x', 'xx')"),
        ("'xxxxxxxx'", "ns.x|replace('', ns.x)"),
        ("'xxxxxxxx'", "ns.x ~ (ns.x ~ 'y').strip(ns.x)"),
        ("'xxxxxxxx'", "ns.x ~ (ns.x|trim(ns.x))"),
        ("'xxxxxxxx'", "ns.x.join([ns.x, ns.x])"),
        ("'xxxxxxxx'", "[ns.x, ns.x]|join(ns.x)"),
        ("'xxxxxxxx'", "'%s%s'|format(ns.x, ns.x)"),
        ("'xxxxxxxx'", "'{}{}'.format(ns.x, ns.x)"),
        ("'x\\nxxxxxx'", "ns.x|indent(100, true) ~ '\\n'"),
        ("[1]", "ns.x + ns.x"),
        ("[1]", "ns.x * 100"),
        ("[1]", "(ns.x, ns.x)|chain|list"),
        ("[1]", "[ns.x, ns.x]|string|list"),
        ("{}", "{'a': ns.x, 'b': ns.x}|tojson|list"),
    ] {
        let error = refused(&grown(start, step));
        assert!(error.contains(TOO_MUCH) || error.contains("nested"), "{step}: {error}");
    }
    // What was not charged once: numbers for texts, lists that are added up, long keys, dictionaries one after the other.
    for (source, said) in [
        ("{{ ('1' * n)|replace(1, 'x' * n) }}", "no text"),
        ("{{ ('1' * n).replace(1, 'x' * n) }}", "no text"),
        ("{{ [('1' * n)]|map('replace', 1, 'x' * n)|list }}", "no text"),
        ("{{ ([[1]] * n)|sum(start=[]) }}", "no numbers"),
        ("{{ ([[1]] * n)|sum([]) }}", "no numbers"),
        (
            "{% set k = 'k' * 20 * n %}{% for i in range(90000) %}{% set v = {'a': 1}[k] %}{% endfor %}",
            TOO_MUCH,
        ),
        (
            "{% set k = 'k' * 20 * n %}{% for i in range(90000) %}{% set v = {'a': 1}.get(k) %}{% endfor %}",
            TOO_MUCH,
        ),
        (
            "{% set k = 'k' * 20 * n %}{% set d = [k] %}{% for i in range(90000) %}{% set v = k in d %}{% endfor %}",
            TOO_MUCH,
        ),
        (
            "{% set ns = namespace(d={}) %}{% for i in range(90000) %}{% set ns.d = ns.d|chain({'b': 1}) %}{% endfor %}{{ ns.d|length }}{{ 1 + none }}",
            "",
        ),
        (
            "{% set ns = namespace(d=[]) %}{% for i in range(90000) %}{% set ns.d = ns.d|chain([1]) %}{% endfor %}{{ ns.d|length }}",
            TOO_MUCH,
        ),
        ("{% for i in [1] %}{{ loop.changed(1, 2) }}{% endfor %}", "changed"),
    ] {
        let error = refused(&format!("{{% set n = 100000 %}}{source}{SAID}"));
        assert!(error.contains(said), "{source}: {error}");
    }
    let macros = "{% macro f(x, n) %}{% if n %}{{ f(x ~ x, n - 1) }}{% else %}{{ x|length }}{% endif %}{% endmacro %}\
                  {{ f('xxxxxxxx', 40) }}";
    assert!(refused(&format!("{macros}{SAID}")).contains(TOO_MUCH));
    // Calls within calls fit a thread's stack, and end.
    for calls in [
        "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
        "{% macro g() %}{{ caller() }}{% endmacro %}{% macro f(n) %}{% call g() %}{{ f(n + 1) }}{% endcall %}{% endmacro %}{{ f(0) }}",
        "{% for a in [[1]] recursive %}{{ loop([[1]]) }}{% endfor %}",
        "{% block a %}{{ self.a() }}{% endblock %}",
        "{% include 'chat template' %}",
        "{% extends 'chat template' %}",
        "{% import 'chat template' as x %}{{ x }}",
    ] {
        refused(&format!("{calls}{SAID}"));
    }
    let raw = format!("{{% for a in range(9999) %}}{}{{% endfor %}}{SAID}", "x".repeat(10_000));
    assert!(refused(&raw).contains(TOO_MUCH));
    let captured = format!(
        "{{% set x = 'x' %}}{{% for a in range(99) %}}{{% set y %}}{}{{% endset %}}{{{{ y }}}}{{% endfor %}}{SAID}",
        "{{ messages|tojson }}".repeat(4000)
    );
    assert!(refused(&captured).contains(TOO_MUCH));
}

#[test]
fn whatever_a_template_reads_is_bounded() {
    let long = "{% set k = 500000 %}{% set x = 'a' * k %}{% set y = 'a' * k %}{% set n = 99999 %}{% set xs = [1] * n %}";
    for step in [
        "x == y",
        "x < y",
        "'b' in x",
        "x[400000]",
        "x|length",
        "x|upper",
        "x is eq(y)",
        "x.find('b')",
        "x.count('aab')",
        "xs == xs + [2]",
        "2 in xs",
        "xs|select('eq', 2)|list",
        "xs|sort",
        "xs|join",
        "{'k': 1} == {'k': x}",
        "x is startingwith(y)",
        "[x]|select('equalto', y)|list",
        "loop.changed(x)",
        "x|replace('b', 'c')",
        "x.startswith(y)",
    ] {
        let source = format!("{long}{{% for i in range(9999) %}}{{% set z = {step} %}}{{% endfor %}}{SAID}");
        let error = refused(&source);
        assert!(error.contains(TOO_MUCH), "{step}: {error}");
    }
}

#[test]
fn numbers_that_ask_for_memory_are_refused_by_name() {
    for (expression, said) in [
        ("'a\\nb'|indent(99999999999)", "indent by 99999999999 spaces, at most 256 are made"),
        ("'a\\nb'|indent(width=99999999999)", "indent by 99999999999 spaces"),
        ("[1]|batch(9999999999, 0)", "batch by 9999999999, at most 10000 are made"),
        ("[1]|slice(9999999999)", "slice by 9999999999, at most 10000 are made"),
        ("'%99999999999d'|format(1)", "a format with a width of more than three digits"),
        ("'{:99999}'.format(1)", "a format with a width of more than three digits"),
        ("'{:{}}'.format(1, 99999999)", "a format with braces within braces"),
        ("'x' * 100000000", "a text or a list times a number is not supported where both are constants"),
        ("('x' * 200) * 200", "a text or a list times a number is not supported where both are constants"),
        ("[1] * 100000000", "a text or a list times a number is not supported where both are constants"),
        ("range(99999999)|list", "range has too many elements"),
        ("range(0, -9223372036854775807, -1)|list", "a range with the number -9223372036854775807"),
        ("f(*[1])", "a call with `*` or `**` before an argument is not supported"),
        ("debug()", "debug"),
        ("1|urlencode", "urlencode"),
    ] {
        let error = refused(&format!("{{{{ {expression} }}}}{SAID}"));
        assert!(error.contains(said), "{expression}: {error}");
    }
}

#[test]
fn values_are_neither_nested_without_an_end_nor_within_themselves() {
    let loops = "{% for i in range(90) %}{% for j in range(1000) %}";
    let ends = "{% endfor %}{% endfor %}";
    for (step, said) in [
        ("[ns.x]", "its values are nested deeper than 64 levels"),
        ("(ns.x,)", "its values are nested deeper than 64 levels"),
        ("{'a': ns.x}", "its values are nested deeper than 64 levels"),
        ("dict(a=ns.x)", "its values are nested deeper than 64 levels"),
        ("[ns.x, ns.x]", "nested"),
        ("ns", "a namespace or a loop cannot be kept in another value"),
        ("[ns]", "a namespace or a loop cannot be kept in another value"),
        ("loop", "a namespace or a loop cannot be kept in another value"),
    ] {
        let source = format!(
            "{{% set ns = namespace(x=[]) %}}{loops}{{% set ns.x = {step} %}}{ends}{{{{ ns }}}}{SAID}"
        );
        let error = refused(&source);
        assert!(error.contains(said) || (said == "nested" && error.contains(TOO_MUCH)), "{step}: {error}");
    }
    // Parts of parts are taken at once, and not one layer for each.
    let parts = format!(
        "{{% set ns = namespace(x=[1, 2, 3]) %}}{loops}{{% set ns.x = ns.x[0:]|reverse %}}{ends}{{{{ ns.x|length }}}}{SAID}"
    );
    drop(ChatTemplate::new(&parts, None, None));
}

#[test]
fn parts_sums_and_products_are_those_of_python() {
    for (expression, expected) in [
        ("[1, 2, 3][0:5:-1]", "[]"),
        ("'abcdef'[0:5:-1] ~ 'abcdef'[::-2] ~ 'abcdef'[4:1:-1]", "fdbedc"),
        ("'abcdef'[1:-1] ~ 'abcdef'[-2:]", "bcdeef"),
        ("messages[1:][0].content ~ messages[:-1]|length", "sled1"),
        ("[1] + [2] + [3]", "[1, 2, 3]"),
        ("1 + 2.5 + 'x'|length", "4.5"),
        ("2 * 3 ~ 'ab' * messages|length", "6abab"),
        ("'x' * (messages|length - 2) ~ ([1] * messages|length)", "[1, 1]"),
        ("'-' * 20", "--------------------"),
        ("(2 + 1) * 2 ** 3", "24"),
        ("[3, 1, 2]|sort|join(', ')", "1, 2, 3"),
        ("('a', 'b')|join('-') ~ {'k': [1]}|tojson", "a-b{\"k\": [1]}"),
        ("'a\\nb'|indent(2)", "a\n  b"),
        ("'%s is %d'|format('x', 3) ~ '{} {}'.format('y', 4)", "x is 3y 4"),
        ("messages|selectattr('role', 'equalto', 'user')|map(attribute='content')|list", "['rosebud']"),
        ("'no' if not messages[0].role == 'user' else 'yes'", "yes"),
        ("messages[0].role == ('user' if true else 'x')", "True"),
        ("dict(a=1, **{'b': 2})|length if false else namespace(a=5).a", "5"),
    ] {
        let source = format!("{{{{ {expression} }}}}|{{{{ messages[1].content }}}}");
        match ChatTemplate::new(&source, Some("<s>"), Some("</s>")) {
            Ok(template) => {
                let text = template.render(&pair(), &Tools::default(), GenerationPrompt::LeftOut).unwrap();
                assert_eq!(text, format!("{expected}|sled"), "{expression}");
            }
            Err(error) => assert!(expression.contains("**"), "{expression}: {error}"),
        }
    }
    let filtered = "{% for m in messages if m.role == 'user' %}{{ loop.index }}{{ m.content }}{% else %}none{% endfor %}\
                    {% for m in messages if m.role == 'tool' %}x{% else %}none{% endfor %}{{ messages[1].content }}";
    assert_eq!(rendered(filtered), "1rosebudnonesled");
    let parts = "{% set x %}<{% filter upper %}a{% endfilter %}>{% endset %}{% macro f(a, b='c') %}{{ a }}{{ b }}{{ caller() }}\
                 {% endmacro %}{% call f(x) %}d{% endcall %}{% with y = 1 %}{{ y }}{% endwith %}{{ messages[1].content }}";
    assert_eq!(rendered(parts), "&lt;A>cd1sled".replace("&lt;", "<"));
}

#[test]
fn a_long_conversation_fits() {
    // Lists and texts that are made again at each message, as real templates make them.
    let source = "{% set ns = namespace(all=[], text='') %}{% for m in messages %}{% set ns.all = ns.all + [m] %}\
                  {% if loop.index0 == messages|length - 1 or m.role != 'user' %}{% set ns.text = m.content|trim %}{% endif %}\
                  {{ '<|' + m.role + '|>' ~ m['content'].strip() ~ (messages[loop.index0 - 1].content if false else '') }}\
                  {% endfor %}{{ ns.all|length }}{{ ns.text }}";
    let template = ChatTemplate::new(source, None, None).unwrap();
    let turn = |role| say(role, &"some words of a turn ".repeat(20));
    let messages: Vec<Message> = (0..400).flat_map(|_| [turn(Role::User), turn(Role::Assistant)]).collect();
    let text = template.render(&messages, &Tools::default(), GenerationPrompt::LeftOut).unwrap();
    assert!(text.len() > 300_000);
}
