"""Records what Hugging Face's BertTokenizer makes of many texts, for tests/text.rs.

Run here with transformers installed: python record.py
It reads easy_vqa.vocab.txt and writes mixed.vocab.txt, *.tokenizer.json and cases.json.
"""

import json
import pathlib
import random
import string
import tempfile

import tokenizers
import transformers
from transformers import BertTokenizer

HERE = pathlib.Path(__file__).parent
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]

WORDS = """
what which who where when why how is are was were the a an of in on at to and or not no yes this that these those there
color colour colors colored red green blue black white gray brown yellow teal orange pink shape circle rectangle triangle
square image picture photo man woman boy girl child people person dog cat horse bird bus car train plane boat bike street
sign table chair plate pizza cake banana apple tree grass sky water snow beach ball bat racket kite surf board phone clock
umbrella hat shirt shoe glasses doing playing eating holding wearing standing sitting walking riding many number one two
three four five six seven eight nine ten left right top bottom behind front under next near does do did can could will would
What Which Who Where How Is Are The Paris London NASA iPhone McDonald café naïve résumé über straße Ärger señor garçon
unaffable play ##ing ##ed ##er ##est ##s ##ly ##able un ##aff ##ness re ##play ##ish ##ful pre ##view inter ##nation ##al
##ization token ##izer word ##piece em ##bed ##ding trans ##form ##ers vis ##ion lang ##uage
привет мир как дела собака кошка что это красный ##ый ##ая ##ов город Москва Привет Мир
καλημερα κόσμε κοσμε σκυλος λόγος λογος ΛΟΓΟΣ Ελλάδα ελλαδα ##ος ##ης
مرحبا العالم كلب ##ات שלום עולם ##ים नमस्ते दुनिया ##ते สวัสดี ##ครับ
こんにちは ありがとう いぬ ねこ カメラ テレビ ##です ##ます 안녕하세요 세계 한국어 개 ##요 ##는
日本 日本語 中国 中文 什么 颜色 圆形 ##语 ##色
""".split()

CJK = "一二三四五六七八九十人大小中国日本語文字漢水火木金土山川犬猫红绿蓝黑白色圆形方什么是的在哪里图像𠀀𠮷㐀﨑豈"
LETTERS = (
    string.ascii_letters
    + string.digits
    + "àáâãäåæçèéêëìíîïñòóôõöøùúûüýÿßœšžłđıİþðĀāĂăĄąĆćČčĎďĘęĚěĞğŁńňőŘřŚśŞşŤťůűŹźŻż"
    + "абвгдежзийклмнопрстуфхцчшщъыьэюяёАБВГДЕЖЗИКЛМНОП"
    + "αβγδεζηθικλμνξοπρσςτυφχψωάέήίόύώΑΒΓΔΕΣΩ"
    + "אבגדהוזחטיכלמנסעפצקרשת"
    + "ابتثجحخدذرزسشصضطظعغفقكلمنهوي"
    + "あいうえおかきくけこさしすせそたちつてとなにぬねのアイウエオカキクケコガギグゲゴパピプペポ"
    + "कखगघचजटडतदनपबमयरलवशसह"
    + "กขคงจชดตนบปมรลวสห"
)
SYMBOLS = string.punctuation + "“”‘’«»…—–·¿¡§¶†‡•‰€£¥¢©®™°±×÷≠≤≥→←↑↓∞√∑、。・「」【】！？，。：；（）😀😂❤👍🎉🐶🐱🚲"
JAMO = [chr(c) for c in range(0x1100, 0x1113)] + [chr(c) for c in range(0x1161, 0x1176)] + [chr(c) for c in range(0x11A8, 0x11B5)]
MARKS = "\u0300\u0301\u0302\u0303\u0308\u030c\u0327\u0328\u0345\u093f\u094d\u0e34\u0e48\u064b\u064e\u05b0\u3099\u309a\u20e3\ufe0f"


def mixed_vocabulary():
    """Not a trained vocabulary: words whole and in pieces, and letters of many scripts, some on purpose
    only as a beginning or only as a continuation."""
    pieces = SPECIAL + [f"[unused{n}]" for n in range(5)] + WORDS + list(SYMBOLS) + list(CJK) + JAMO
    for at, letter in enumerate(LETTERS):
        if at % 11 != 10:
            pieces.append(letter)
        if at % 7 != 6:
            pieces.append("##" + letter)
    pieces += ["##" + jamo for jamo in JAMO] + list(MARKS) + ["##" + mark for mark in MARKS[::2]]
    pieces += ["##" + letter for letter in CJK[::3]]
    pieces += [a + b for a in "bcdfghjklmnprstvw" for b in "aeiou"]
    pieces += ["##" + a + b for a in "aeiou" for b in "bcdfglmnprstvxz"]
    return list(dict.fromkeys(pieces))


HARD = [
    "", " ", "\t\n\r", "\u0000", "\u200b\u200d\ufeff", "\u0301", "\u0301\u0301a", "a\u0301", "\ufffd", "\u00a0", "\u3000", "\u2028\u2029",
    "what shape is present?", "What Shape Is PRESENT?", "what is the color of the circle?", "is there a red circle?",
    "unaffable playing replayed", "tokenizers embedding transformers", "blue-green", "don't can't o'clock rock'n'roll",
    "3.14159 1,000,000 50% $5.00 #1 @home", string.punctuation, " ".join(string.punctuation), "a" + "b".join(string.punctuation) + "c",
    "...", "?!?!", "hello...world", "e-mail: a.b@c.de", "http://example.org/a?b=c&d=e#f", "C:\\dir\\file.txt", "a_b_c", "`code`", "~tilde~",
    "café naïve résumé über", "cafe\u0301 nai\u0308ve", "CAFÉ ÜBER ÄRGER", "ﬁne ﬂow ﬃ", "Ǆ ǅ ǆ ĳ", "ẞ ß straße STRASSE", "İstanbul ıspanak I i", "ſtraſse", "Ωμέγα K Å",
    "ΛΟΓΟΣ λόγος ΣΑΣ σας ς", "ᾳ ᾼ ΐ ΰ ῷ", "Ελλάδα καλημέρα κόσμε", "Привет, мир! Ёлка й", "ЙОД ёж Ѝ",
    "مرحبا بالعالم", "مَرْحَبًا", "שָׁלוֹם עוֹלָם", "नमस्ते दुनिया", "किताब क्ष", "สวัสดีครับ", "ที่นี่", "ກຂ", "ქართული ᲥᲐᲠᲗᲣᲚᲘ", "Հայերեն", "አማርኛ", "ᏣᎳᎩ ꭰꭱ",
    "日本語の文字", "这是什么颜色?", "圆形是red吗", "中国zh日本jp", "漢字かな交じり文", "カメラとテレビ", "ガギグ", "カ\u3099キ\u3099", "ｶﾞｷﾞ ＡＢＣ１２３", "안녕하세요 세계", "한국어 개는", "\u1112\u1161\u11ab", "𠀀𠮷𪚥", "㐀㐁", "﨑豈更", "〇〆々", "⼀⼆",
    "😀", "hello 😀 world", "👨‍👩‍👧‍👦 family", "👍🏽", "🇩🇪🇫🇷", "❤️ ❤", "1️⃣ #️⃣", "🐶cat🐱", "☺︎", "🫠🪿",
    "zero\u200bwidth", "zero\u200djoin", "soft\u00adhyphen", "bom\ufeffinside", "left\u200eright\u200f", "word\u2060joiner", "a\u00a0b\u2003c\u3000d", "line\u2028sep\u2029par", "next\u0085line", "vt\u000bff\u000c", "bell\u0007esc\u001b", "del\u007f", "nul\u0000inside", "\u0001\u0002a\u0003", "private\ue000use", "unassigned\u0378x", "tag\U000e0041", "repl\ufffdacement", "non\ufffechar\uffff",
    "new\nline\ttab\r\ncrlf", "   leading and trailing   ", "many      spaces", "\n\n\n", "a\n\nb",
    "a" * 99, "a" * 100, "a" * 101, "a" * 1000, "red" * 33, "red" * 34, "é" * 100, "e\u0301" * 60, "e\u0301" * 101, "e" + "\u0301" * 300, "中" * 120, "😀" * 101, "!" * 150, "x" * 100 + "!" + "y" * 101,
    "[SEP]", "[CLS]", "[MASK]", "[PAD]", "[UNK]", "a [MASK] b", "a[MASK]b", "[MASK][MASK]", "[mask]", "[Sep]", "[ SEP ]", "[SEP", "SEP]", "[[SEP]]", "what [SEP] is [CLS] this", "[PAD] [PAD]", "[unused1]", "[UNUSED1]", "\u0301[SEP]\u0301", "[S\u200bEP]", " [SEP] ", "é[SEP]É", "中[MASK]国", "[MASK]ing", "##ing", "## ing", "#", "##",
    "“quoted” ‘single’ «guillemets»", "em—dash en–dash hyphen‐minus‑", "ellipsis… bullet•", "¿qué? ¡sí!", "100€ £5 ¥7 ¢9", "5×3÷2±1", "≠ ≤ ≥ → ∞", "© ® ™ ° § ¶", "（全角）！？，。", "「かぎ」【墨】", "a\u0338b", "$+<=>^`|~", "²³¹ ½ ¼", "①②③ Ⅷ ⅷ", "№5 ℃ ℡", "ª º", "ǰ ẖ", "ﷺ", "ﾟﾞ", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝟙𝟚𝟛", "Ａ Ｂ", "ᵃᵇ ʰ", "x̧̄ ǭ ṩ ș", "Việt Nam tiếng Việt", "Đường ĐƯỜNG", "Türkçe İIıi", "Zażółć gęślą jaźń", "Příliš žluťoučký kůň", "Ærø Ørsted Ålborg", "Łódź", "Œuvre œ Æ æ", "þorn ÐE",
]

POOLS = [
    WORDS, WORDS, WORDS, SPECIAL, list(string.punctuation), list(string.ascii_letters), list(LETTERS), list(CJK), list(SYMBOLS), list(MARKS), JAMO,
    [" ", " ", " ", "\t", "\n", "\u00a0", "\u3000", "\u2009"], ["\u200b", "\u200d", "\ufeff", "\u00ad", "\u0000", "\u0007", "\ufffd", "\ue000", "\u0378", "\u180e"],
]
RANGES = [(0x80, 0x24F), (0x300, 0x36F), (0x370, 0x5FF), (0x600, 0x6FF), (0x900, 0xE7F), (0x1E00, 0x1FFF), (0x2000, 0x2BFF), (0x3000, 0x30FF), (0x3400, 0x9FFF), (0xAC00, 0xD7A3), (0xE000, 0xFFFF), (0x10000, 0x1F9FF), (0x20000, 0x2FA1F), (0, 0x10FFFF)]


def random_texts(count):
    rng = random.Random(20190820)
    for _ in range(count):
        parts = []
        for _ in range(rng.randint(1, 14)):
            if rng.random() < 0.75:
                parts.append(rng.choice(rng.choice(POOLS)).replace("##", ""))
            else:
                code = rng.randint(*rng.choice(RANGES))
                parts.append("?" if 0xD800 <= code <= 0xDFFF else chr(code))
            if rng.random() < 0.35:
                parts.append(" ")
        yield "".join(parts)


def main():
    (HERE / "mixed.vocab.txt").write_text("\n".join(mixed_vocabulary()) + "\n", encoding="utf-8")
    texts = HARD + list(random_texts(420))
    variants = [
        ("easy_vqa", "easy_vqa", {}),
        ("mixed", "mixed", {}),
        ("mixed_cased", "mixed", {"do_lower_case": False}),
        ("mixed_accents", "mixed", {"strip_accents": False}),
        ("mixed_cased_stripped", "mixed", {"do_lower_case": False, "strip_accents": True}),
        ("mixed_chinese_words", "mixed", {"tokenize_chinese_chars": False}),
    ]
    recorded = []
    for name, vocab, options in variants:
        with tempfile.TemporaryDirectory() as folder:
            pathlib.Path(folder, "vocab.txt").write_bytes((HERE / f"{vocab}.vocab.txt").read_bytes())
            tokenizer = BertTokenizer.from_pretrained(folder, **options)
        json_name = f"{name}.tokenizer.json"
        if name != "easy_vqa":
            (HERE / json_name).write_text(tokenizer.backend_tokenizer.to_str(), encoding="utf-8")
        special = [tokenizer.unk_token_id, tokenizer.sep_token_id, tokenizer.cls_token_id, tokenizer.pad_token_id, tokenizer.mask_token_id]
        ids = [tokenizer(text)["input_ids"] for text in texts]
        recorded.append({"name": name, "vocab": f"{vocab}.vocab.txt", "json": json_name, "options": options, "size": len(tokenizer), "special_ids": special, "ids": ids})
        print(name, len(tokenizer), "pieces;", sum(tokenizer.unk_token_id in row for row in ids), "of", len(texts), "texts have [UNK]")
    record = {"transformers": transformers.__version__, "tokenizers": tokenizers.__version__, "texts": texts, "variants": recorded}
    (HERE / "cases.json").write_text(json.dumps(record, separators=(",", ":")) + "\n")


main()
