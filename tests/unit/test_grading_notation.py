"""The notation of calculators and programs, quantities in other units, and prose around the mathematics."""

from __future__ import annotations

import pytest

from curiosft_cli.grading.match import match_math
from curiosft_cli.grading.normalise import as_latex

# fmt: off
ACCEPTED = {
    r"\frac{\sqrt{x+1}}{2}": ["sqrt(x+1)/2", "(x+1)**(1/2)/2", "1/2*sqrt((x+1))", "np.sqrt(x + 1)/2"],
    r"e^{-\frac{x^2}{2s^2}}": ["exp(-x**2/(2*s**2))", "e**(-(x**2)/(2*s**2))", "e^(-x^2/(2*s^2))"],
    r"\cos^2 x": ["cos(x)^2", "cos^2(x)", "Cos(x)**2", "cos(x)*cos(x)"],
    r"\arctan x": ["atan(x)", "tan^(-1)(x)", "arctg(x)"],
    r"\alpha+\xi": ["alpha + xi", "ξ + α"],
    r"\log_2 x": ["log(x, 2)"],
    r"x^{\sqrt{y}}": ["x^sqrt(y)", "x**sqrt(y)"],
    r"\frac{n!}{2}": ["factorial(n)/2", "n!/2"],
    r"|a+|b||": ["abs(a+abs(b))", "Abs(a + Abs(b))"],
    r"\frac{p}{3}": ["1/3p", "1/3 p"],
    r"\frac{\cosh x}{\sinh x}": ["coth(x)", "coth x"],
    r"v_{in}+v_{out}": ["v_in*1 + v_out"],
    r"L\sqrt{\frac{d}{gh}}": ["L*sqrt(d)/sqrt(g*h)"],
    r"3 \text{ m}": ["300 cm", r"300\text{ cm}", "0.003 km", "3 meters", "3m"],
    r"2 \text{ kJ}": ["2000 N*m", r"2000 \text{ kg} \cdot \text{m}^2/\text{s}^2", r"2 \times 10^3 \text{ J}"],
    r"90 \text{ km/h}": ["25 m/s", r"25 \frac{\text{m}}{\text{s}}", "90 kilometers per hour"],
    r"\text{ft}": ["foot"],
    "5": ["5 sec", "5 min"],
    r"\lfloor \frac{x}{2} \rfloor": ["floor(x/2)", r"\operatorname{floor}(x/2)"],
    r"\binom{n}{2}": ["nCr(n, 2)", "n*(n-1)/2"],
    r"x^{\frac13}": [r"x^\frac13", r"\sqrt[3]x", "x^(1/3)"],
    r"\frac{3 \pm \sqrt5}{2}": [r"\frac{3+\sqrt5}{2}, \frac{3-\sqrt5}{2}", r"x = 1.5 \pm \sqrt{5}/2"],
    r"a, a+2": [r"a+1 \pm 1", r"a+1 \mp 1"],
    "a_n=3a_{n-1}": ["3a_{n-1}=a_n"],
    r"(1,2,3)": [r"\left<1, 2, 3\right>", "<1,2,3>"],
    r"So it is $\boxed{\frac{1}{2}}$.": ["1/2"],
    "Paris": ["*Paris*", "**Paris**"],
    r"x \ge 4": [r"We find that $x \ge 4$.", r"Thus \(x \geq 4\) is the solution.", r"The result: $$x\geq4$$"],
    "C": ["C. the last one", "C) none of these"],
    "(D) Alina": ["D", "(D)", "D. Alina"],
    "x=2, x=3": ["x=3 或 x=2"],
    "y=2": ["2 = y", "2"],
    r"\text{hello world}": ["Hello, world!"],
    "c+c=c+c": ["2c=2c"],
    "yes": ["YES", "Yes."],
    r"all integers $k \ge 2$": [r"All integers $k \geq 2$."],
    "odd": ["Odd"],
    "romeo and juliet": ["Romeo and Juliet", "romeo, and juliet!"],
    r"\text{no solution}": ["No solutions", r"\text{No real solutions}"],
    r"\frac{q}{4\pi\epsilon_0}": ["q/(4*pi*epsilon_0)"],
    r"\mu_0 I": ["mu_0*I"],
    r"\frac{\pi}{2}": [r"1/2\pi", "1/2 pi"],
    r"10^{26} \text{ J}": [r"10^{33} \text{ erg}"],
    r"\sqrt[3]{2}": ["cbrt(2)", "2^(1/3)"],
    r"\pm1\pm\sqrt2": [r"1+\sqrt2, 1-\sqrt2, -1+\sqrt2, -1-\sqrt2"],
    "x=2": [r"Thus, $x = 2$.", r"Therefore, $2$"],
    r"\frac{1}{2}": [r"\bigl(\frac{1}{2}\bigr)", r"\mathbf{\frac{1}{2}}", r"\emph{1/2}", "50 percent", "50 pct"],
    r"\pm 7": ["{-7, 7}", r"\{7,-7\}"],
    "x_1+x_{12}": ["x1 + x12"],
    r"\arcsin x": [r"\asin\left(x\right)"],
    r"\csc x+\Lambda x": ["cosec(x) + Lambda*x"],
    r"\$0.50": [r"50 \text{ cents}", "0.5", r"\frac{1}{2}\text{ dollars}"],
    r"36 \text{ km/h}": ["36 kmh", "10 m/s"],
    "12000000": [r"\$12 \text{ million}", r"\$12 million"],
    "12+x": [r"\$12 + x"],
    r"\alpha=1, \beta=2": ["(1,2)", r"\beta=2, \alpha=1"],
    "9.8": [r"9.8\,m/s^2", r"9.8\ m/s^2"],
    "P(1+r)^T": ["(1+r)^T P"],
    r"2\pi \text{ m}": [r"200\pi \text{ cm}"],
    r"3\sqrt2 \text{ m}": [r"300\sqrt2 \text{ cm}", r"\sqrt{18}"],
}
REFUSED = {
    r"\frac{\sqrt{x+1}}{2}": ["sqrt(x)+1/2", "sqrt(x+1/2)"],
    r"e^{-\frac{x^2}{2}}": ["e^(-x)^2/2", "exp(-x^2)/2"],
    r"\cos^2 x": ["cos(x^2)", "cos(cos(x))"],
    r"\arctan x": ["tan(x)^(-1)", "1/tan(x)"],
    r"\frac{1}{3p}": ["1/3*p"],
    r"\sqrt{x^2}": ["x"],
    r"3 \text{ m}": ["30 cm", r"300\text{ kg}", "300 mm", "3 km"],
    r"2am": ["2 am^2"],
    r"\frac{3 \pm \sqrt5}{2}": [r"\frac{3+\sqrt5}{2}", r"\frac{3 \pm \sqrt5}{4}", r"3 \pm \frac{\sqrt5}{2}"],
    r"(1,2,3)": ["<1,3,2>"],
    "5": ["5*", "*5"],
    r"\text{ft}": ["inch", "pound"],
    "m": ["n", "s"],
    r"x \ge 4": [r"It is false that $x \ge 4$.", r"It is not that $x \ge 4$.", r"We find that $x > 4$."],
    "7": [r"at least $7$", r"At least: $7$", r"greater than: $7$", r"It is not $7$", "seven", "7th"],
    "C": ["B. the last one"],
    "2.5": ["2,5"],
    "c+c=c+c": ["1=1", "c=2c"],
    "a_n=3a_{n-1}": ["a_n=3a_{n+1}", "a_n=3a_n"],
    "|x+20|-20": ["|x+10|-10", "x"],
    "(2^4)!": ["2^4!"],
    "2+2=4": ["1=1"],
    "kT": ["Kt", "KT"],
    "RC": ["rc"],
    r"M_{\text{sun}}": [r"m_{\text{sun}}"],
    r"\frac{GMmh}{R}": [r"\frac{Gmmh}{R}"],
    "R-r": ["r-R"],
    "mn": ["mn!"],
    "bc": ["a bc"],
    r"500 \text{ nm}": [r"500 \text{ mm}", r"500 \text{ nm}^2"],
    r"2 \text{ MeV}": [r"2 \text{ GeV}"],
    r"5 \text{ m/s}": [r"5 \text{ m/s}^2", "5 km/h"],
    r"24 \text{ N m}": [r"24 \text{ N/m}"],
    "2L": ["2l"],
    "3d": ["72h"],
    "0 celsius": ["0 fahrenheit", "0 kelvin"],
    "hertz": ["becquerel"],
    "x^2+1": [r"y=(x+1)^2=x^2+1"],
    "n(n+1)": [r"S_n=\frac{n(n+1)}{2}=n(n+1)"],
    r"\frac{1}{2\pi}": [r"1/2\pi"],
    r"\pm(1+\sqrt2)": [r"\pm1\pm\sqrt2"],
    "2": [
        r"The negative of the answer is $2$", r"Suppose that $2$", r"It cannot be that $2$", r"multiples of: $2$",
        r"\text{Twice the area is } 2", "half of the area is 2", "5 tenths", r"2 \text{ pairs}", "x=y=" * 400 + "2",
    ],
    "x+y+z": ["|x|+|y|+|z|"],
    "|x+100|-100": ["|x+101|-101", "x"],
    "r_1-r_2+r_3=0": ["r1 - r2 - r3 = 0"],
    r"\$5": [r"5 \text{ cents}"],
    "0": [r"\$20 \text{ dollars}"],
    r"\alpha=1, \beta=2": ["(2,1)"],
    "P(1+r)^T": ["P(1+r)"],
    r"3\sqrt2 \text{ m}": [r"3\sqrt2 \text{ cm}", r"18 \text{ m}"],
    r"\pm 7": ["{7}", "{-7, 7, 0}"],
}
# fmt: on


@pytest.mark.parametrize("gold", ACCEPTED)
def test_the_same_in_another_notation_is_accepted(gold: str) -> None:
    verdicts = {answer: match_math(answer, gold) for answer in ACCEPTED[gold]}
    assert {answer: verdict for answer, verdict in verdicts.items() if verdict != (True, "ok")} == {}


@pytest.mark.parametrize("gold", REFUSED)
def test_something_else_in_that_notation_is_refused(gold: str) -> None:
    assert [answer for answer in REFUSED[gold] if match_math(answer, gold)[0]] == []


@pytest.mark.parametrize("text", [r"\frac{1}{2}x^{2}", r"\sqrt{x}+(y)", r"(0,1]", r"f(x))", "((", r"\log_{2}(x)"])
def test_latex_and_unbalanced_brackets_stay_as_they_are(text: str) -> None:
    assert as_latex(text) == text
