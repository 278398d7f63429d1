"""Tables of a user's own, for tests."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

Row = dict[str, Any]
WORDS = [  # of what is bad, of what is good, and of neither
    ["cold", "late", "rude", "stale", "burnt", "dry", "pale", "tiny"],
    ["warm", "fresh", "quick", "friendly", "crisp", "tender", "rich", "huge"],
    ["soup", "rice", "table", "fork", "waiter", "menu", "bread", "glass", "street", "evening", "sauce", "cheese"],
]


def people(count: int = 200, seed: int = 0) -> list[Row]:
    """Rows with all sorts of columns, and whether somebody rides a bike."""
    generator = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        age, town = int(generator.integers(18, 80)), str(generator.choice(["Ulm", "Köln", "Bonn"], p=[0.5, 0.3, 0.2]))
        rows.append(
            {
                "id": number + 1,
                "age": age,
                "town": town,
                "income": "" if number % 7 == 0 else round(float(generator.lognormal(8, 1)), 2),
                "since": f"20{generator.integers(10, 24)}-0{generator.integers(1, 10)}-1{generator.integers(0, 10)}",
                "note": f"note {generator.integers(10**9)} of {number}",
                "country": "DE",
                "bike": "yes" if (age < 45) ^ (town == "Ulm") else "no",
            }
        )
    return rows


def reviews(count: int = 100, seed: int = 0) -> list[Row]:
    """Reviews of meals, each with words of its own, and the stars that were given."""
    generator = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        good = number % 3 > 0
        words = [*generator.choice(WORDS[good], 3), *generator.choice(WORDS[2], 5), generator.choice(WORDS[not good])]
        text = f"Number {generator.integers(10**6)}: {' '.join(generator.permutation(words))}"
        stars = 4.0 + number % 2 if good else 1.0
        rows.append({"verdict": "好评" if good else "差评", "stars": stars, "review": text})
    return rows


def films(count: int = 200, seed: int = 0) -> list[Row]:
    """Films with tags that follow from what happens in them, a place and a length in two units."""
    generator = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        laughs, deaths, tears = (int(number) for number in generator.integers(0, 10, 3))
        holds = {"Komödie": laughs > 5, "horror": deaths > 6, "drama": tears > 4, "19th century": laughs + tears < 3}
        rows.append(
            {
                "laughs": laughs,
                "deaths": deaths,
                "tears": tears,
                "tags": ";".join(name for name, held in holds.items() if held),
                "lat": 48.0 + laughs / 10,
                "minutes": 60.0 + 7 * deaths + 3 * tears,
            }
        )
    return rows


def as_columns(rows: list[Row], names: list[str]) -> list[Row]:
    """The same rows with a column of yes and no for each tag."""
    return [
        {**{name: "yes" if name in row["tags"].split(";") else "no" for name in names}, **row, "tags": ""}
        for row in rows
    ]


def write(path: Path, rows: list[Row], mark: str = ",", encoding: str = "utf-8", end: str = "\n") -> Path:
    lines = [mark.join(map(str, cells)) for cells in (rows[0], *(row.values() for row in rows))]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((end.join(lines) + end).encode(encoding))
    return path


def hours(count: int = 400, seed: int = 0) -> list[Row]:
    """Two columns by the hour that come again each day, with a plan, known ahead, that one of them follows."""
    generator = np.random.default_rng(seed)
    start, place = datetime(2024, 1, 1), np.arange(count)
    plan = generator.integers(0, 2, count)
    load = 50 + 10 * np.sin(2 * np.pi * place / 24) + 8 * plan + generator.normal(0, 0.5, count)
    heat = 0.2 + 0.05 * np.cos(2 * np.pi * place / 24) + generator.normal(0, 0.005, count)
    return [
        {
            "time": str(start + timedelta(hours=number)),
            "load": round(float(load[number]), 3),
            "heat": round(float(heat[number]), 5),
            "plan": int(plan[number]),
            "station": "north",
        }
        for number in range(count)
    ]


def waves(count: int = 90, seed: int = 0) -> list[Row]:
    """A series in each row, slow or quick waves of 15 to 20 steps that begin anywhere, and how high they are."""
    generator = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        length, height = int(generator.integers(15, 21)), float(generator.uniform(1, 3))
        angles = (0.4 if number % 2 else 1.6) * np.arange(length) + generator.uniform(0, 6)
        values = [round(float(value), 4) for value in height * np.sin(angles) + generator.normal(0, 0.1, length)]
        steps = {f"t{step}": values[step] if step < length else "" for step in range(20)}
        rows.append({"name": f"wave {number}", "kind": "slow" if number % 2 else "quick", "height": height, **steps})
    return rows


def steps(rows: list[Row]) -> list[Row]:
    """The same with a row for each step, in two columns, of which one says it twice over."""
    return [
        {"wave": row["name"], "kind": row["kind"], "step": step, "x": row[f"t{step}"], "y": 2 * row[f"t{step}"]}
        for step in reversed(range(20))
        for row in rows
        if row[f"t{step}"] != ""
    ]
