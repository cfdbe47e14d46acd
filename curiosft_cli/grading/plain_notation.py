"""The notation of calculators and programs as LaTeX: `sqrt(x)/2`, `e**(-x)`, `cos^2(x)`, `alpha`, `log(x, 2)`."""

from __future__ import annotations

import re

# By their order in Unicode.
_LETTERS = """
    alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho varsigma sigma tau upsilon
    phi chi psi omega
"""
GREEK = {chr(ord("α") + place): name for place, name in enumerate(_LETTERS.split())}
"""Commands of the letters of Unicode."""
_NAMES = [*GREEK.values(), "Gamma", "Delta", "Theta", "Lambda", "Xi", "Phi", "Psi", "Omega", "hbar"]
GREEK |= {
    chr(ord("Α") + ord(c) - ord("α")): name.capitalize() for c, name in GREEK.items() if name.capitalize() in _NAMES
}
_RATIOS = ("sin", "cos", "tan", "cot", "sec", "csc")
_FUNCTIONS = ["ln", "log", "exp", "sqrt", "abs", "factorial", "ceil", "floor", "cbrt"]
_FUNCTIONS += [f"{arc}{name}{h}" for arc in ("", "arc") for name in _RATIOS for h in ("", "h")]
_COMMANDS = {name: name for name in (*_FUNCTIONS, *_NAMES)}
_COMMANDS |= {f"a{name[3:]}": name for name in _FUNCTIONS if name.startswith("arc")}
_COMMANDS |= {"inf": "infty", "infinity": "infty", "oo": "infty", "tg": "tan", "ctg": "cot", "arctg": "arctan"}
_COMMANDS |= {"ceiling": "ceil"}
_OPERATOR = re.compile(r"\\operatorname\s*\{\s*(\w+)\s*\}")
_WORD = re.compile(r"(?<![A-Za-z\\])(?:(?:np|numpy|math)\.)?([A-Za-z]{2,})(?![A-Za-z'])(?=(\s*\(|[\^*])?)")
_BRACKET = re.compile(r"(?:(\\(?:sqrt|cbrt|abs|factorial|ceil|floor)|\^)\s*)?\(|\^\s*(\\[a-z]+)\s*\(|\)")
_AROUND = {r"\sqrt": (r"\sqrt{", "}"), r"\abs": ("|", "|"), r"\factorial": ("(", ")!"), "^": ("^{", "}")}
_AROUND |= {r"\cbrt": (r"\sqrt[3]{", "}")} | {rf"\{name}": (rf"\l{name} ", rf"\r{name} ") for name in ("ceil", "floor")}
_INDEX = re.compile(r"(?<![A-Za-z\\])([A-Za-z])_([A-Za-z]{2,}\d*)(?![A-Za-z_])")
_RECIPROCAL = re.compile(r"\\(coth|sech|csch)\s*(\^\s*\{?\w+\}?)?\s*(\([^()]*\)|[A-Za-z](?![A-Za-z]))")
_LOWER = {"coth": r"\tanh", "sech": r"\cosh", "csch": r"\sinh"}
_LOGARITHM = re.compile(r"\\log\s*\(([^(),]+),\s*(\w+)\)")
_BINOMIAL = re.compile(r"(?<![A-Za-z\\])(?:nCr|binom|binomial|choose)\s*\(([^(),]+),([^(),]+)\)")


def as_latex(text: str) -> str:
    """Write known names as commands and brackets as braces where LaTeX wants them. LaTeX itself stays as it is."""
    text = _OPERATOR.sub(
        lambda m: f" {m[1]}" if m[1] in _COMMANDS else m[0], text.replace("==", "=").replace("+/-", r"\pm ")
    )
    if "*" in text:
        text = _INDEX.sub(r"\1_{\2}", text.replace("**", "^"))
    text = _RECIPROCAL.sub(lambda m: rf"\frac{{1}}{{{_LOWER[m[1]]}{m[2] or ''} {m[3]}}}", _WORD.sub(_command, text))
    text = _BINOMIAL.sub(r"\\binom{\1}{\2}", _LOGARITHM.sub(r"\\log_{\2}(\1)", text))
    pieces, closing, done = [], [], 0
    for found in _BRACKET.finditer(text):
        pieces.append(text[done : found.start()])
        done = found.end()
        if found[0] == ")":
            pieces.append(closing.pop() if closing else ")")
        else:
            start, end = _AROUND.get(found[2] or found[1], ((found[2] or "") + "(", ")"))
            start, end = ("^{" + start, end + "}") if found[2] else (start, end)
            pieces.append(start)
            closing.append(end)
    return text if closing else "".join([*pieces, text[done:]])


def _command(word: re.Match[str]) -> str:
    name = word[1].lower() if word[2] and word[1].lower() in _COMMANDS else word[1]
    if name in _FUNCTIONS and word.end() == len(word.string):
        return word[0]  # `5 sec` is a time
    is_indexed = word.string.startswith("_", word.end())
    return rf"\{_COMMANDS[name]}{'' if is_indexed else ' '}" if name in _COMMANDS else word[0]
