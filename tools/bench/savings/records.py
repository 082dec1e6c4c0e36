"""Files of records: logs that grow and are rotated, CSV, JSON lines, a mailbox."""

from __future__ import annotations

import base64
import random
from typing import TYPE_CHECKING

from tools.bench.savings.corpus import Corpus, Site, seed
from tools.bench.savings.words import Words

if TYPE_CHECKING:
    from collections.abc import Iterator

AGENTS = 40
GROUP = 200  # rows of JSON that stay together


def log(site: Site) -> Iterator[None]:
    """An access log that grows eight times, then begins anew beside the old one."""
    rng, words = random.Random(seed("log")), Words(seed("log"))
    agents = [f"Mozilla/5.0 ({words.sentence(rng, 6)})" for _ in range(AGENTS)]
    path = site.folder / "access.log"
    at = 0
    for step in range(9):
        if step == 8:
            path.rename(site.folder / "access.log.1")
        with open(path, "a") as lines:
            end = lines.tell() + site.size(3.5)
            while lines.tell() < end:
                for _ in range(1000):
                    at += rng.randrange(3)
                    lines.write(_request(at, rng, words, agents))
        yield


def _request(at: int, rng: random.Random, words: Words, agents: list[str]) -> str:
    when = f"{1 + at // 86400:02}/Nov/2026:{at // 3600 % 24:02}:{at // 60 % 60:02}:{at % 60:02} +0000"
    where = f"10.{rng.randrange(4)}.{rng.randrange(256)}.{rng.randrange(256)}"
    target = "/".join(words.several(rng, rng.randint(1, 3)))
    status = rng.choices((200, 304, 404, 500), (80, 12, 7, 1))[0]
    return f'{where} - - [{when}] "GET /{target}?id={rng.randrange(10**6)} HTTP/1.1" {status} {int(rng.expovariate(1e-4))} "-" "{rng.choice(agents)}"\n'


def csv(site: Site) -> Iterator[None]:
    """An export ordered by the time of the last change: each day half a percent of the rows move to the end."""
    rng, words = random.Random(seed("csv")), Words(seed("csv"))
    count = site.size(22) // 88
    rows = [_csv_row(number, 0, rng, words) for number in range(count)]
    for day in range(7):
        (site.folder / "export.csv").write_text("id,name,city,stock,price,changed\n" + "".join(rows))
        yield
        moved = set(rng.sample(range(count), count // 200))
        new = [_csv_row(int(rows[at].partition(",")[0]), day + 1, rng, words) for at in sorted(moved)]
        rows = [row for at, row in enumerate(rows) if at not in moved] + new


def _csv_row(number: int, day: int, rng: random.Random, words: Words) -> str:
    return (
        f"{number},{words.name(rng)},{words.word(rng)},{rng.randrange(5000)},{rng.lognormvariate(3, 1):.2f},"
        f"2026-11-{day + 1:02}T{rng.randrange(24):02}:{rng.randrange(60):02}:{rng.randrange(60):02}Z,{rng.getrandbits(64):016x}\n"
    )


def json_lines(site: Site) -> Iterator[None]:
    """An export whose groups of 200 rows come in another order each time, as parallel writers leave them."""
    rng, words = random.Random(seed("json")), Words(seed("json"))
    rows = [_json_row(number, rng, words) for number in range(site.size(18) // 230)]
    groups = [rows[at : at + GROUP] for at in range(0, len(rows), GROUP)]
    for _ in range(7):
        with open(site.folder / "events.jsonl", "w") as lines:
            for group in groups:
                lines.writelines(group)
        yield
        for group in groups:
            if rng.random() < 0.01:
                group[rng.randrange(GROUP) % len(group)] = _json_row(rng.randrange(10**6), rng, words)
        rng.shuffle(groups)


def _json_row(number: int, rng: random.Random, words: Words) -> str:
    return (
        f'{{"id": {number}, "session": "{rng.getrandbits(96):024x}", "event": "{words.word(rng)}", '
        f'"user": {{"id": {rng.randrange(50_000)}, "name": "{words.name(rng)}"}}, "at": {1_700_000_000 + number * 3}.{rng.randrange(1000):03}, '
        f'"tags": ["{words.word(rng)}", "{words.word(rng)}"], "text": "{words.sentence(rng, rng.randint(3, 12))}"}}\n'
    )


def mbox(site: Site) -> Iterator[None]:
    """A mailbox: each day some mails are deleted, flags of some change in place, new ones come at the end."""
    rng, words = random.Random(seed("mbox")), Words(seed("mbox"))
    mails: list[bytes] = []
    limit = site.size(26)
    size = 0
    while size < limit:
        mails.append(_mail(rng, words))
        size += len(mails[-1])
    for _ in range(6):
        (site.folder / "inbox").write_bytes(b"".join(mails))
        yield
        mails = [mail for mail in mails if rng.random() > 0.01]
        for at in rng.sample(range(len(mails)), len(mails) // 50):
            mails[at] = mails[at].replace(b"Status: O\n", b"Status: RO\n", 1)
        mails += [_mail(rng, words) for _ in range(1 + len(mails) // 100)]


def _mail(rng: random.Random, words: Words) -> bytes:
    """One in five has an attachment, compressed before it was encoded."""
    sender = f"{words.word(rng)}@{words.word(rng)}.example"
    head = (
        f"From {sender} Mon Nov 23 {rng.randrange(24):02}:{rng.randrange(60):02}:00 2026\nFrom: {words.name(rng)} <{sender}>\n"
        f"To: me@here.example\nMessage-ID: <{rng.getrandbits(128):032x}@{words.word(rng)}.example>\n"
        f"Subject: {words.sentence(rng, 5)}\nStatus: O\n\n"
    )
    lines = [words.sentence(rng, 11) for _ in range(rng.randint(5, 60))]
    body = ("\n".join(lines) + "\n").encode()
    if rng.random() < 0.2:
        body += base64.encodebytes(rng.randbytes(int(rng.lognormvariate(10, 1)))) + b"\n"
    return head.encode() + body + b"\n"


CORPORA = (
    Corpus("log", "an access log, growing, then rotated, 9 states", log),
    Corpus("csv", "CSV, 0.5 % of the rows move to the end, 7 days", csv),
    Corpus("json", "JSON lines, groups of 200 in another order, 7 days", json_lines),
    Corpus("mbox", "a mailbox: deletes, flags, new mail, 6 days", mbox),
)
