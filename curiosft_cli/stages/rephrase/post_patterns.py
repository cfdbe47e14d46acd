"""How labels, sources, chat, answers and sentences look in a forum post: the patterns of `posts.py`."""

from __future__ import annotations

import re

HIDDEN = re.compile("\ue000(\\d+)\ue001")

CONTEST = (
    r"AMC|AIME|AJHSME|AHSME|IMO|USAMO|USAJMO|HMMT|PUMaC|BMO|APMO|Putnam|SAT|GRE|GMAT|GCSE|A-?level|olympiad|olympics"
    r"|contest|competition|championship|tournament|mock|homework|worksheet|textbook|league|math\s*club|shortlist"
    r"|magazine|journal|lecture\s+notes"
)
PLACE = r"exam(?:ination)?|quiz|test|book|chapter|page|p\.|round|day|camp|class|assignment|source|section|calc\s+\d"
LABEL_WORD = r"problem|prob|question|exercise|example|ex|task|puzzle|challenge|item|q|p|no|nr|number|[例题]"
# Labels that are taken out wherever they stand: points, sources, parts.
MARKS = [
    re.compile(pattern, re.IGNORECASE | re.MULTILINE)
    for pattern in (
        r"\[/?(?:b|i|u|url|img|size|color|center)\b[^\]]*\]|</?(?:br|p|b|i|u|em|strong|div|span|img|a|h\d|li|ul|ol|font)\b[^<>\n]*>"
        r"|&nbsp;",
        r"[(\[（【]\s*(?:total\s+|worth\s+|本题满分)?\d+(?:\.\d+)?\s*(?:points?|pts?\.?|marks?|p\.?|分|б\w*)\s*(?:each|total)?\s*[)\]）】]",
        r"[(\[（【]\s*(?:full|total|max(?:imum)?)\s+(?:marks?|points?|score)\s*[:=]?\s*\d+\s*(?:points?|marks?|pts?|['’′分])?\s*[)\]）】]",
        r"(?<=[.?!;:)])[ \t]+\[\d{1,2}\](?=\s*$)",
        r"\b(?:as\s+(?:is\s+)?shown\s+)?in\s+(?:the\s+)?(?:\w+\s+)?(?:figure|fig\.|diagram|picture|image|drawing|sketch)"
        r"(?:\s+(?:\d+(?:[-.]\d+)*|below|above|shown|attached|on\s+the\s+(?:left|right)))*",
        rf"[(\[（【]\s*(?:{LABEL_WORD})\s*\.?\s*#?\d+[^()\[\]（）【】\ue000\n]*[)\]）】]",
        r"(?<![\w)\]}^_\\])[(（]\s*(?:\d{1,2}|[ivx]{1,4}|[a-e])\s*[)）](?=\s*[A-Z求证若])",
        rf"[(\[（【][^()\[\]（）【】\ue000\n]*(?:\b(?:{CONTEST})\b|\b(?:{PLACE})\s+\d)[^()\[\]（）【】\ue000\n]*[)\]）】]",
        r"[(\[（【](?=[^()\[\]\ue000\n]*[A-Za-z\u4e00-\u9fff])[^()\[\]=\ue000\n]*\b(?:1[89]|20)\d\d\b[^()\[\]=\ue000\n]*[)\]）】]",
        r"\[(?:level|topic|difficulty|id|tags?|category)\b[^\[\]\ue000]*\]",
    )
]
# What a post begins with: a number of a collection that is set as a formula, or a source: (City contest) Let ...
SECTION = re.compile(r"^\s*\$\d{1,3}\s*\\cdot\s*\d{1,3}\$(?=\s*[A-Z])")
SOURCE = re.compile(r"\s*\([^()\d$=\\\n\ue000]{2,40}\)(?=\s*[A-Z\ue000])")
# Labels at the start of a sentence, one after another.
LABEL = re.compile(
    r"[\s*#>]*(?:\d+\s*(?:points?|pts?|marks?)\s*[:.\-–—]|\[[^\]\d$=]{1,40}\]"
    r"|(?:problem|prob|question|exercise|example|ex|task|puzzle|challenge|item)\b\.?\s*#?\s*(?:[A-Z]-?)?\d+(?:[.\-]\d+)*[a-z]?"
    r"\s*(?:\([^()$\n]*\))?\s*[.:)\]*]*(?:\s+[-–—])?"
    r"|(?:q|p|no\.?|nr\.?|number|#)\s*\d+(?:[.\-]\d+)*\s*(?:[.:)\]]+|[-–—](?=\s))|q\d+(?=\s)"
    r"|(?:jan|feb|mar|apr|may|june?|july?|aug|sep|oct|nov|dec)\w*\.?\s+(?:19|20)\d\d\b"
    r"|(?:[A-Za-z]+\s+){1,3}#\d+\**\s*[-–—.:)]"
    r"|[(（]?\d{1,3}(?:\.\d{1,3})*\s{0,3}[.)、．）](?=\s|$))",
    re.IGNORECASE,
)
GREETING = re.compile(
    r"\s*(?:大家|你们|老师|各位)好[^。:：，,？?\ue000]{0,6}[,，:：。!！]|\s*(?:请教|求教|求助|问)(?:一下|大家|一道题|个题|各位){1,3}[,，:：。!！]"
    r"|\s*(?:hi|hello|hey|greetings|dear|good\s+(?:morning|evening|afternoon|day))\b[^,.!?:\d\ue000\n]{0,30}[,.!:]\s",
    re.IGNORECASE,
)
# Chat that is taken out wherever it stands.
ASIDES = re.compile(
    r"\[(hide|spoiler|quote)\b[^\]]*\][\s\S]{0,2000}?\[/\1\]|https?://\S+|www\.\S+|[\w.+-]{1,64}@[\w-]{1,64}\.\w+|(?<!\w)@\w+|^\s*>.*$",
    re.IGNORECASE | re.MULTILINE,
)
# What the writer thinks, at the end of a sentence of the problem.
OPINION = re.compile(
    r",\s*(?:but\s+|and\s+|which\s+)?I\s+(?:think|guess|believe|suspect|got|get|tried|know|suppose)\b[^.?!()\n]*",
    re.IGNORECASE,
)
PARENTHESIS = re.compile(r"[(（]([^()（）\n]{3,})[)）]")
EMOTICON = re.compile(r"(?<!\w)[:;=]-?[()DPp|](?!\w)|\^_\^|<3(?!\w)|\b[xX]D\b|:[a-z_]{3,}:")
# From here to the end of the post.
TAIL = re.compile(
    r"(?:^[ \t*_#>]{0,8}|(?<=[.?!\ue001])\s+)(?:(?:my|our|the|full|official|a|suggested|\w+['’]s)\s+)*"
    r"(?:approach|motivation|background|thoughts|moderators?|mods|working\s+so\s+far|what\s+(?:I(?:['’]ve)?|have\s+I|we)\s+(?:have\s+)?(?:tried|done|did|got)(?:\s+so\s+far)?|solution|answer|ans|proof|mark(?:ing)?\s+scheme|rubric|attempt|work(?:ing)?|progress|explanation|reasoning|reply|re|comments?|discussion)\b\s*(?:#?\d+|key|attempt|idea|sketch|(?:from|by)\s+\S+)?\s*[*_]*\s*(?:[:：]|[-–—.]\s|\n)",
    re.IGNORECASE | re.MULTILINE,
)
ANSWER_TOLD = re.compile(
    r"\b(?:(?:the|my|correct|final|official|right|given)\s+(?:answer|solution)"
    r"|(?:final\s+)?ans(?:wer)?(?:\s+(?:given|in\s+(?:the\s+|my\s+)?(?:text)?book))?(?=\s*[:=：])"
    r"|\bans(?=\s+(?:is|was)\b)|(?:answer\s+)?key|(?:my|the|our)\s+(?:text)?book)\s*(?:in\s+the\s+book\s*)?(?:is|was|says?|should\s+be|gives?|=|:|：)"
    r"\s*(?:\w+\s+)?(?:[$\d\ue000*-]|[A-E]\b|\([a-e]\))|\\boxed"
    r"|\banswer\s+[^.?!]{0,20}\b(?:is|was)\s+(?:wrong|right|correct|incorrect)\b",
    re.IGNORECASE,
)
# Small talk: a number beside it is the problem's, unless the question is over.
SMALL_TALK = re.compile(
    r"\b(?:thanks?|thank\s+you|thx|tysm|ty|cheers|regards|hello|hi|hey|greetings|good\s+(?:morning|evening|afternoon|luck)"
    r"|lol|lmao|haha+|btw|imho|folks|guys|anyone|anybody|can\s+(?:some|any)one|any\s+(?:help|hints?|ideas?|thoughts|suggestions?|tips?)"
    r"|(?:need|needs?\s+some|brauche)\s+(?:help|hilfe)|help\s+(?:needed|wanted|please|pls|plz)|this\s+(?:forum|thread|post)"
    r"|who\s+can\s+(?:do|solve|get|beat)\s+(?:it|this)|solved\s+it\?|repost(?:ing)?|bump|attached|attachment|screenshot|photo|typos?|enjoy|have\s+fun|happy\s+solving|(?:no|without(?:\s+using)?(?:\s+a)?)\s+calculators?"
    r"|calculators?\s+(?:is|are|not)|(?:good|nice|great|dumb|silly)\s+(?:one|problem|question|puzzle)|sorry|apologies|pls|plz"
    r"|(?:easy|hard|tricky|quick|interesting|classic|fun|cool|cute)\s+(?:one|problem|question|puzzle)"
    r"|step\s+by\s+step|exams?\s+(?:is|are)\s+(?:near|soon|tomorrow)|please\s+(?:help|explain|show\s+(?:all\s+)?(?:your|me|work|steps)|post|reply|check|don['’]t|do\s+not|no\b|be)"
    r"|привет|здравствуйте|спасибо|заранее|помогите|hallo|danke|hilfe|hola|gracias|ayuda|bonjour|merci|salut|ciao|grazie"
    r"|obrigad[oa])(?!\w)|谢谢|大家好|求助|谢了",
    re.IGNORECASE,
)
# Never the problem's.
META = re.compile(
    r"^\W*hints?\b|[,;—-]\s*(?:right|correct|yes|ok|huh)\s*\?+\W*$|\b(?:even|really|actually)\s+(?:possible|true|right|correct|solvable)\s*\?"
    r"|\b(?:edit(?:\s+\d+)?\s*:|update\s*:|hints?\s*[:!.]|views\b|replies\b|likes\s*:|tags?\s*:|source\s*:|difficulty\b|category\s*:"
    r"|level\s*:|author\s*:|p\.\s?s\.|posted\b|posting\b|last\s+edited\b|credits?\s+(?:to|goes)\b|taken\s+from\b|rate\s+this\b"
    r"|is\s+there\s+(?:a|an|any|some)\s+(?:\w+\s+){0,2}(?:formula|trick|method|shortcut)\b[^?]{0,20}\?"
    r"|is\s+(?:the|my)\s+(?:text)?book\s+(?:wrong|right|correct)|(?:is|am)\s+(?:this|that|it|I)\s+(?:right|correct|wrong)\s*\?"
    r"|can\s+(?:you|some(?:one|body)|any(?:one|body))\s+(?:please\s+)?(?:check|verify|explain|confirm|help)\b"
    r"|(?:calc(?:ulator)?|wolfram(?:\s*alpha)?|desmos|geogebra|chatgpt|gpt)\s+(?:gives?|gave|says?|said|shows?)\b|mods?\s+please\b"
    r"|due\s+(?:on\s+)?\w+day\b|reasoning\s*:|revision\s+sheet|handout|worksheet|marathon|graders?\b|earlier\s+thread|sent\s+from\b|asking\s+for\s+a\s+friend\b|(?:correct|best|first)\s+(?:correct\s+)?(?:reply|solver)\b)",
    re.IGNORECASE,
)
# The writer, the thread, the lesson: a number beside it is theirs.
ABOUT_POST = re.compile(
    r"\b(?:me|my\s+(?:\w+\s+){0,2}(?:teacher|professor|prof|tutor|coach|son|daughter|friend|brother|sister|cousin|uncle|aunt"
    r"|dad|mom|mum|kids?|child|wife|husband|boss|colleague|class|classmates?|students?|book|textbook|homework|answer|solution"
    r"|attempt|work|approach|guess|exam|test|quiz|head|calculator|school|english|progress|thoughts?|idea|niece|nephew|grandpa"
    r"|grandma|roommate|post|question|problem|paper|topic|notes|exercise|assignment|handwriting|phone)|our\s+(?:\w+\s+)?(?:teacher|professor|class|school|contest|coach|exam|test|book|team|club)"
    r"|(?:gave|given|asked|told|showed?)\s+(?:it\s+to\s+)?us|help\s+us|how\s+(?:do|would|should|can)\s+(?:I|you|we)\s+(?:do|solve"
    r"|approach|start|prove)|(?:I|am|[’']m|got|be|been|getting|still)\s+stuck|stuck\s+(?:on|with|at|here)|tutoring"
    r"|upvotes?|lost\s+\d+\s+points"
    r"|years?\s+old\s+(?:son|daughter)|came\s+across|im|ive"
    r"|(?:some|many|several|most)\s+people\s+(?:say|get|fail)|rumou?r|worth\s+\d+\s+(?:points?|marks?)|points?\s+(?:for|to|if)\s+(?:the|who|you|a)"
    r"|I(?:['’](?:m|ve|d|ll)\b|\s+(?:\w+ly\s+|just\s+|also\s+|even\s+|still\s+|already\s+|only\s+)?(?:am|was|did|post|got|get|think|thought"
    r"|tried|try|know|knew|don['’]?t|didn['’]?t|can['’]?t|cannot|could|couldn['’]?t|need|want|found|find|saw|see|say|said|guess"
    r"|believe|would|spent|remember|attempted|keep|kept|solved|understand|feel|love|like|hate|hope|wonder|suspect|figured"
    r"|heard|ended|computed|calculated|counted|factored|used|wrote|managed|mean|never|looked|asked|started|copied|translated"
    r"|came|failed|noticed|swear|completed|expanded|substituted|applied|plugged|integrated|differentiated|simplified|have\s+(?:no|been|to|tried|trouble|this|seen|got|spent|never|a\s+(?:question|problem|test|quiz)"
    r"|an\s+exam|attached))))(?!\w)",
    re.IGNORECASE,
)
WRITER_SPEAKS = re.compile(
    r"\W*(?:(?:but|and|so|also|well|ok|yes|no|yeah|because|though)\s+)*(?:I|my|our|we)\b", re.IGNORECASE
)
# After the question these sentences talk to the reader, unless they also set a condition.
WRITER = re.compile(r"\bI\b|(?i:\b(?:me|my|mine|im)\b|(?<!\w)i\b(?!\.))")
PERSON = re.compile(rf"{WRITER.pattern}|(?i:\b(?:you|your)\b)")
CONDITION = re.compile(
    r"\b(?:where|if|suppose|assum\w+|given|let|note|each|every|must|may|only|consider|denotes?|recall|round\w*|express"
    r"|leave|give|nearest|decimals?|significant|simplest|terms|units?|form)\b",
    re.IGNORECASE,
)
ASKS_FIRMLY = re.compile(
    r"[?？]|(?:^|[.:;,]\s|\band\s|\bthen\s)\W*(?:find|compute|determine|calculate|evaluate|prove|show|solve|simplify|factor\w*"
    r"|express|expand|give|sketch|verify|estimate|integrate|differentiate|construct|convert)\b",
    re.IGNORECASE,
)
PART = re.compile(r"\W*(?:[a-h]|[ivx]{1,4}|\d)\s*[.)]\s")
NAMED = re.compile(rf"\b(?:{CONTEST})\b|\b(?:{PLACE})\s+\d", re.IGNORECASE)
QUANTITY = re.compile(
    r"\d|\ue000|\b(?:two|three|four|five|six|seven|eight|nine|ten|twelve|twenty|half|twice|dozen)\b", re.I
)
ASKS = re.compile(
    r"[?？]|\b(?:find|compute|determine|calculate|evaluate|prove|show\s+that|solve|simplify|factor|express|what|which|how|give"
    r"|write|sketch|draw|prove|verify|estimate|maximi[sz]e|minimi[sz]e|expand|integrate|differentiate|construct|derive|count"
    r"|convert|list|state|name|is\s+it|does|are\s+there|let|suppose|assume|if|given|where|consider|define|fill|choose|complete"
    r"|describe|explain|justify|decide|resolve|investigate|discuss|obtain|classify|compare|factori[sz]e|rationali[sz]e|identify|enter|round|reduce|arrange|divide|add|subtract|multiply|order|graph|plot|put)\b"
    r"|\b(?:найдите|вычислите|докажите|решите|сколько|bestimme|berechne|finde|wie|calcula|halla|cu[aá]l|trouver|calculer)\b"
    r"|[求证试解计算设若已知]|_{2,}|\\(?:underline|qquad)|=\s*\\?\$?\s*[.?]?\s*$",
    re.IGNORECASE,
)
VERB = re.compile(
    r"\b(?:is|are|was|were|has|have|had|takes?|gets?|costs?|\w{3,}ed|shows?|contains?|plays?)\b", re.IGNORECASE
)
BREAK = re.compile(
    r"(?<=[?？!！。])[\"')\]*]*\s+|(?<=[。！？])|(?<=:)\s+|(?<=\.)[\"')\]*]*\s+(?=[\"'(\[*]?[A-ZА-ЯÄÖÜ¿\d\ue000*~/—-])|(?<=\.)\s{2,}|\n+"
    r"|(?<=[.?!])\s+(?=(?:ans(?:wer)?|i|im|my|please|pls|plz|thx|thanks|any|got|it['’]?s\s+from)\b)|\s+(?:—|--+)\s+(?=[a-z])"
)
NO_BREAK = re.compile(
    r"\b(?:e\.g|i\.e|etc|vs|cf|fig|eq|no|nr|st|dr|mr|mrs|ms|approx)\.\s*$"
    r"|\b(?:edit(?:\s+\d+)?|update|hints?|tags?|source|p\.?s\.?|ans(?:wer)?(?:\s+given)?|reasoning|note|views|replies|likes|level|author|category|topic)\s*:\s*$",
    re.IGNORECASE,
)
# An image as code: it may stay or go.
IMAGE = re.compile(r"\[asy\b[^\]]*\][\s\S]{0,10000}?\[/asy\]", re.IGNORECASE)
MIN_REPEATED = 12
