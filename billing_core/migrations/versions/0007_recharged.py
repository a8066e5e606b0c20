"""What was recharged in a stretch is less what reversals took off again: the stretches are filled again beside the charges.
And the sums of use get what reversals of calls that cost nothing undid: their tokens, and that they were calls.
"""

from alembic import op

revision = "0007"
down_revision = "0006"

QUARTER_NS = 900 * 10**9
MODEL, ACCOUNT, BOTH = 0, 1, 2
AT_CALL, AT_REVERSAL = 1, 2
LENGTHS = {MODEL: (768, 96, 16, 1), ACCOUNT: (6144, 768, 96, 16, 1), BOTH: (768, 96, 16, 4, 1)}
KEY = ("of", "length", "period", "account_id", "model_id", "kind", "slot")
TOKENS = ("prompt_tokens", "cached_tokens", "cache_creation_tokens", "completion_tokens", "reasoning_tokens")
NUMBERS = ("cost", "calls", *TOKENS, "priced_extras", "upstream_yuan", "upstream_cost")
PRICED = " OR ".join(
    f"e.extras LIKE '%\"{name}\":%'"
    for name in ("cache_creation_1h", "audio_input", "image_input", "audio_output", "image_output", "tools", "service_tier")
)


def upgrade() -> None:
    for table in ("stretch_holds", "stretch"):
        op.execute(f"DELETE FROM {table}")
    op.execute(f"""
        INSERT INTO usage_sum ({', '.join((*KEY, *NUMBERS))})
        WITH RECURSIVE chain(root, at_ns, sign) AS (
            SELECT reverses_id, created_at_ns, -1 FROM entry WHERE reverses_id IS NOT NULL AND cost = 0
            UNION ALL
            SELECT up.reverses_id, chain.at_ns, -chain.sign
            FROM chain JOIN entry up ON up.id = chain.root WHERE up.reverses_id IS NOT NULL
        ), kept(of, length) AS (
            VALUES {', '.join(f'({of}, {length})' for of, lengths in LENGTHS.items() for length in lengths)}
        )
        SELECT kept.of, kept.length,
            CASE undone.kind WHEN {AT_CALL} THEN e.created_at_ns ELSE chain.at_ns END / {QUARTER_NS} / kept.length,
            CASE kept.of WHEN {MODEL} THEN 0 ELSE e.account_id END, CASE kept.of WHEN {ACCOUNT} THEN 0 ELSE e.model_id END,
            undone.kind, 0, 0, sum(chain.sign), {', '.join(f'sum(chain.sign * e.{name})' for name in TOKENS)},
            sum(CASE WHEN e.extras IS NOT NULL AND ({PRICED}) THEN chain.sign ELSE 0 END),
            sum(chain.sign * coalesce(e.upstream_yuan, 0)), 0
        FROM chain JOIN entry e ON e.id = chain.root
        CROSS JOIN (SELECT {AT_CALL} AS kind UNION ALL SELECT {AT_REVERSAL}) AS undone CROSS JOIN kept
        WHERE e.reverses_id IS NULL AND e.type IN ('deduct', 'settle')
        GROUP BY 1, 2, 3, 4, 5, 6
        ON CONFLICT ({', '.join(KEY)}) DO UPDATE
        SET {', '.join(f'{name} = usage_sum.{name} + excluded.{name}' for name in NUMBERS)}
    """)
