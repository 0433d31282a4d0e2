//! What a base from a hub says of texts: its chat template and its tokenizer.

use engine::Base;
use text::template::ChatTemplate;
use text::template::GenerationPrompt;
use text::{Message, Role, Tools};

use super::bases::{CONFIG, weights};
use super::folder::with_folder;
use super::tape::Tape;

/// Characters that a rendering may have for a short conversation: what a template may make in all.
const MOST_RENDERED_BYTES: usize = 17 << 20;

/// A chat template. What it makes of a short conversation is bounded, and the same each time.
pub fn template(bytes: &[u8]) {
    let Ok(source) = str::from_utf8(bytes) else { return };
    let Ok(template) = ChatTemplate::new(source, Some("<s>"), Some("</s>")) else { return };
    let say = |role, content: &str| Message::new(role, content);
    let messages =
        [say(Role::System, "brief"), say(Role::User, "first\n line"), say(Role::Assistant, " <s>é \"q\" ")];
    for end in 0..=messages.len() {
        let once = template.render(&messages[..end], &Tools::default(), GenerationPrompt::Added);
        if let Ok(text) = &once {
            assert!(text.len() <= MOST_RENDERED_BYTES, "{} bytes", text.len());
        }
        assert_eq!(template.render(&messages[..end], &Tools::default(), GenerationPrompt::Added), once);
    }
}

/// A tokenizer in a folder of the smallest base, and a text that it cuts: whatever it is, that is a text's tokens or one
/// error.
pub fn tokenizer(bytes: &[u8]) {
    let mut tape = Tape::new(bytes);
    let text = String::from_utf8_lossy(tape.part()).into_owned();
    let file = tape.rest();
    with_folder(|folder| {
        let write = |name: &str, bytes: &[u8]| std::fs::write(folder.join(name), bytes).unwrap();
        write("config.json", CONFIG.as_bytes());
        write("model.safetensors", &weights());
        write("tokenizer.json", file);
        if let Ok(base) = Base::open(folder) {
            for text in [text.as_str(), "a b, 12 é\n"] {
                if let Ok(tokens) = base.encode(text) {
                    drop(base.decode(&tokens));
                }
            }
            drop(base.decode(&[0, 1, 2, 3]));
        }
    });
}

/// Templates as bases have them, made small, and such as ask for too much.
pub(super) fn templates() -> Vec<Vec<u8>> {
    let said = "{{ messages[-1].content }}";
    let real = [
        include_str!("../../../client/text/tests/reference/chat/chatml.jinja"),
        include_str!("../../../client/text/tests/reference/chat/llama3.jinja"),
        include_str!("../../../client/text/tests/reference/chat/mistral.jinja"),
        include_str!("../../../client/text/tests/reference/chat/zephyr.jinja"),
        // As Gemma, Qwen and DeepSeek do it.
        "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}\
         {% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\
         {{ raise_exception('roles') }}{% endif %}{% set role = 'model' if message.role == 'assistant' else message.role %}\
         {{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}",
        "{%- set ns = namespace(multi_step_tool=true, last=messages|length - 1) %}{%- for message in messages[::-1] %}\
         {%- set index = (messages|length - 1) - loop.index0 %}{%- if ns.multi_step_tool and message.role == 'user' and not\
         (message.content.startswith('<tool>') and message.content.endswith('</tool>')) %}{%- set ns.last = index %}{%- endif %}\
         {%- endfor %}{%- for message in messages %}{{- '<|im_start|>' + message.role + '\n' + message.content.split('</think>')[-1].lstrip('\n')\
         ~ '<|im_end|>' }}{%- endfor %}",
        "{% macro tool(t, n=2) %}{{ t|tojson(indent=n) }}{% endmacro %}{% for m in messages if m.role != 'system' %}\
         {{ tool({'a': [m.content, 1.5]}) }}{% else %}none{% endfor %}{{ strftime_now('%d %b %Y') }}",
    ];
    let attacks = [
        format!("{{{{ {}1 }}}}{said}", "not ".repeat(1500)),
        format!("{{{{ a{} }}}}{said}", " ~ a".repeat(400)),
        format!(
            "{{% set ns = namespace(x='xx') %}}{{% for i in range(40) %}}{{% set ns.x = ns.x ~ ns.x %}}{{% endfor %}}{said}"
        ),
        format!(
            "{{% set ns = namespace(x=[1]) %}}{{% for i in range(40) %}}{{% set ns.x = ns.x + ns.x %}}{{% endfor %}}{said}"
        ),
        format!(
            "{{% set ns = namespace(x=[]) %}}{{% for i in range(999) %}}{{% set ns.x = [ns.x] %}}{{% endfor %}}{said}"
        ),
        format!("{{% set ns = namespace() %}}{{% set ns.x = ns %}}{{{{ ns }}}}{said}"),
        format!("{{{{ 'a\nb'|indent(99999999999) }}}}{said}"),
        format!(
            "{{% set k = 99999 %}}{{% set x = 'a' * k %}}{{% for i in range(99999) %}}{{% set y = x|replace('a', 'bb') %}}{{% endfor %}}{said}"
        ),
        format!("{{{{ 'x' * 100000000 }}}}{{{{ [1]|batch(99999999, 0) }}}}{{{{ 'abc'[0:9:-1] }}}}{said}"),
    ];
    real.iter().map(|text| text.as_bytes().to_vec()).chain(attacks.map(String::into_bytes)).collect()
}

/// Tokenizers of each kind, as small as they can be, and such as ask for too much or stop the library.
pub(super) fn tokenizers() -> Vec<Vec<u8>> {
    let whole = |normalizer: &str, pre_tokenizer: &str, post_processor: &str, decoder: &str, model: &str| {
        let file = format!(
            r#"{{"version":"1.0","truncation":null,"padding":null,"added_tokens":[{{"id":3,"content":"<s>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}}],"normalizer":{normalizer},"pre_tokenizer":{pre_tokenizer},"post_processor":{post_processor},"decoder":{decoder},"model":{model}}}"#
        );
        let text = "ab <s> 12ab";
        [&u16::try_from(text.len()).unwrap().to_le_bytes(), text.as_bytes(), file.as_bytes()].concat()
    };
    let pairs = r#"{"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":[["a","b"]]}"#;
    let pieces = r#"{"type":"Unigram","unk_id":0,"vocab":[["a",-1.0],["b",-2.0],["ab",-1.5]]}"#;
    let (replace, split) = (
        r#"{"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"▁"},{"type":"Replace","pattern":{"String":" "},"content":"▁"}]}"#,
        r#"{"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"\\p{N}{1,3}|\\s+(?!\\S)|\\s+"},"behavior":"Isolated","invert":false},{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":false}]}"#,
    );
    let template = r#"{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>","type_id":0}},{"Sequence":{"id":"A","type_id":0}}],"pair":[{"Sequence":{"id":"A","type_id":0}},{"Sequence":{"id":"B","type_id":1}}],"special_tokens":{"<s>":{"id":"<s>","ids":[3],"tokens":["<s>"]}}}"#;
    let decoder = r#"{"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},"content":" "},{"type":"ByteFallback"},{"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":0}]}"#;
    let null = "null";
    vec![
        whole(replace, null, template, decoder, pairs),
        whole(
            null,
            split,
            null,
            r#"{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true}"#,
            pairs,
        ),
        whole(
            null,
            r#"{"type":"Metaspace","replacement":"▁","prepend_scheme":"first","split":true}"#,
            null,
            null,
            pieces,
        ),
        whole(
            null,
            r#"{"type":"WhitespaceSplit"}"#,
            null,
            null,
            r#"{"type":"WordLevel","vocab":{"ab":0},"unk_token":"ab"}"#,
        ),
        whole(
            null,
            r#"{"type":"BertPreTokenizer"}"#,
            null,
            null,
            r###"{"type":"WordPiece","unk_token":"a","continuing_subword_prefix":"##","max_input_chars_per_word":100,"vocab":{"a":0,"##b":1}}"###,
        ),
        // Each of these asked for gigabytes, or stopped the library.
        whole(r#"{"type":"Precompiled","precompiled_charsmap":"/////w=="}"#, null, null, null, pieces),
        whole(null, r#"{"type":"FixedLength","length":0}"#, null, null, pairs),
        whole(null, null, null, r#"{"type":"Strip","content":"a","start":3,"stop":9}"#, pairs),
        whole(
            null,
            r#"{"type":"Split","pattern":{"Regex":"(?:(?=a)a){99999}(a+)+$"},"behavior":"Isolated","invert":false}"#,
            null,
            null,
            pairs,
        ),
        whole(
            null,
            null,
            null,
            null,
            r#"{"type":"BPE","vocab":{"aaaa":0,"bbbb":1},"merges":[["aaaa","bbbb"]]}"#,
        ),
        whole(
            null,
            null,
            null,
            null,
            r#"{"type":"BPE","continuing_subword_prefix":"xxxx","vocab":{"a":0,"b":1,"ab":2},"merges":[["a","b"]]}"#,
        ),
        whole(null, null, null, null, r#"{"type":"Unigram","unk_id":99,"vocab":[]}"#),
    ]
}
