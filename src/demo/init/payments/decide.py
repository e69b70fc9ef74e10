def decide(operation, account, body, state):
    """Returns the reply's status and body, and the accounts that change."""
    body = body if isinstance(body, dict) else {}
    payee, amount = body.get("to"), body.get("amount_cents")
    if operation != "pay" or not isinstance(payee, str) or type(amount) is not int or amount <= 0 or payee == account:
        return 422, {"title": "`to` names another account, `amount_cents` is a positive integer"}, {}
    balance = lambda name: state.get(name, {"balance_cents": 100_000})["balance_cents"]
    if balance(account) < amount:
        return 409, {"title": "insufficient funds", "balance_cents": balance(account)}, {}
    payer = {"account": account, "balance_cents": balance(account) - amount}
    other = {"account": payee, "balance_cents": balance(payee) + amount}
    return 201, {"paid_cents": amount, **payer}, {account: payer, payee: other}
