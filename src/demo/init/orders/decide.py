def decide(operation, order, body, state):
    """Returns the reply's status and body, and the order if it changes."""
    now = state.get(order)
    if operation == "place":
        if not isinstance(body, dict) or not isinstance(body.get("item"), str):
            return 422, {"title": "`item` is a text"}, {}
        if now:
            return 409, {"title": "the order exists", **now}, {}
        placed = {"order": order, "item": body["item"], "status": "placed"}
        return 201, placed, {order: placed}
    if operation == "ship":
        if not now or now["status"] != "placed":
            return 409, {"title": "there is no order to ship"}, {}
        return 200, now | {"status": "shipped"}, {order: now | {"status": "shipped"}}
    return 422, {"title": f"unknown operation {operation}"}, {}
