"""Small words of a few languages that a change of a problem often touches: hints, never a verdict."""

from __future__ import annotations

FUNCTION_WORDS = {
    "negation": """
        no not non none nor neither never without cannot 不 没 無 无 非 未 否 не ни нет без никакой никакая никакое
        ningún ninguno ninguna ningun nunca sin ne pas aucun aucune jamais sans nicht kein keine keinen keiner nie ohne
        não nenhum nenhuma sem nessun nessuna senza żaden żadna
    """,
    "quantifier": """
        all any some every each both exactly only least most at distinct different unique 所 任 每 存 至 恰 都 只 各 异
        все всех любой любого каждый каждая каждого некоторый некоторые ровно только хотя найдутся todos todas todo cada
        algún alguna exactamente solo tous toutes tout chaque exactement seulement alle jede jeder jedes genau nur
        mindestens höchstens einige
    """,
    "connective": "or and oder und ou et или и y o 或 且",
    "unit": """
        mm cm dm km mg kg ml cl min minute minutes second seconds hour hours day days metre metres meter meters inch
        inches foot feet mile miles mph degree degrees percent square cubic dollar dollars cent cents euro euros 米 厘
        千 克 元 秒 分 时 天 度 мм см км кг мин час часов руб
    """,
}
KINDS_OF_WORDS = {word: kind for kind, words in FUNCTION_WORDS.items() for word in words.split()}
