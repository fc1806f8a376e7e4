"""Studies of chunk length and denoising steps: every claim is recomputed from the table."""

from control_claims import at, clauses, clocked, findings, rows, told, verdict

from noise2action.studies import chunk_size, denoising_steps
from noise2action.studies.policies import BOUNDARY, JERK, SUCCESS, WITHIN


def test_claims_on_chunk_length_follow_from_the_rows():
    table, text = rows("chunk-size"), findings("chunk-size").paragraph
    for measure, digits in ((SUCCESS, 1), (JERK, 1), (BOUNDARY, 4), (WITHIN, 4)):
        found = clauses(text, measure)
        for row in table:
            if row["H"] != 16:
                gap = at(row, f"{measure}, less that of H = 16")
                clause = found[chunk_size.EXECUTED.index(str(row["executed"]))][verdict(gap)]
                assert f"H = {row['H']} {told(gap, digits)}" in clause


def test_every_chunk_length_is_executed_by_half_and_by_four():
    table = [(r["executed"], r["H"], r["actions between plans"]) for r in rows("chunk-size")]
    assert table[:4] == [(chunk_size.HALF, h, h // 2) for h in (4, 8, 16, 32)]
    assert table[4:] == [(chunk_size.SAME, h, 4) for h in (4, 8, 16, 32)]
    # Half of eight is four: the same episodes.
    one, two = (r for r in rows("chunk-size") if r["H"] == 8)
    assert one[JERK] == two[JERK]


def test_claims_on_denoising_steps_follow_from_the_rows():
    table, text = rows("denoising-steps"), findings("denoising-steps").paragraph
    for measure, digits in ((SUCCESS, 1), (denoising_steps.STRANGE, 4), (JERK, 1)):
        found = clauses(text, measure)
        for row in table:
            if row["denoising steps"] != 10:
                gap = at(row, f"{measure}, less that of the most steps")
                clause = found[list(denoising_steps.SAMPLERS).index(str(row["sampler"]))][verdict(gap)]
                assert f"{row['denoising steps']} steps {told(gap, digits)}" in clause
    for row in table[:2]:
        time = f"{clocked(row, 'p50 (ms)')} / {clocked(row, 'p99 (ms)')} ms"
        assert f"{row['denoising steps']} steps {time}" in text
