# 1. where the receiver is, and a token with the role write; call shows errors
URL=${RECEIVER_URL:-http://127.0.0.1:8000}
JSON='Content-Type: application/json'
call() { curl -sS --fail-with-body -H "Authorization: Bearer $RECEIVER_TOKEN" "$@"; }
member() { python3 -c "import json, sys; print(json.load(sys.stdin)['$1'])"; }

# 2. list the models, or look at one
call $URL/api/v1/models
call $URL/api/v1/models/z-image

# 3. create a generation; repeated with the same key it is paid once
TASK=$(call -H "$JSON" -H 'Idempotency-Key: order-1' $URL/api/v1/generations \
    -d '{"model": "z-image", "prompt": "a red fox in the snow", "client_request_id": "order-1"}' | member id)

# 4. its status now; its status as soon as it is settled; its history; a list
call $URL/api/v1/generations/$TASK
call "$URL/api/v1/generations/$TASK?wait=30"
call $URL/api/v1/generations/$TASK/transitions
call "$URL/api/v1/generations?status=succeeded&limit=20"

# 5. track a task that was created elsewhere, or attach metadata to a known one
call -X PUT -H "$JSON" $URL/api/v1/generations/$TASK -d '{"metadata": {"order": 7}}'

# 6. credits that are left; credits spent by token, model and day
call $URL/api/v1/credits
call $URL/api/v1/usage

# 7. register a webhook of your program; the answer has its signing_secret, this once; list them
TYPES='["generation.succeeded", "generation.failed"]'
call -H "$JSON" $URL/api/v1/webhooks \
    -d '{"name": "Production webhook", "url": "https://example.com/rivya/webhook", "event_types": '"$TYPES"'}'
call $URL/api/v1/webhooks

# 8. make a file of one pixel, upload it, look at it
PIXEL=iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==
python3 -c "import base64; open('fox.png', 'wb').write(base64.b64decode('$PIXEL'))"
FILE=$(call -F kind=image -F file=@fox.png $URL/api/v1/files | member file_id)
call $URL/api/v1/files/$FILE

# 9. chat, continue in the same session, look at the session
SESSION=$(call -H "$JSON" -H 'Idempotency-Key: turn-1' $URL/api/v1/chat/completions \
    -d '{"model": "gpt-5-2-chat", "message": "Name a fox."}' | member session_id)
call -H "$JSON" $URL/api/v1/chat/completions \
    -d '{"model": "gpt-5-2-chat", "message": "Another one.", "session_id": "'$SESSION'"}'
call $URL/api/v1/chat/sessions
call $URL/api/v1/chat/sessions/$SESSION

# 10. chat as a stream of server-sent events, as Rivya writes them
call -N -H "$JSON" $URL/api/v1/chat/completions/stream \
    -d '{"model": "gpt-5-2-chat", "message": "Hello."}'

# 11. health and metrics; these need no token
call $URL/readyz
call $URL/metrics
