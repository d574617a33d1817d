-- For wrk: sends requests that were signed before, each exactly once. Each thread has its own part and sends nothing
-- after its last line, because a repeated request would cost the server less.
--
--   wrk ... --script replay.lua URL -- PARTS PAUSE_MS
--
-- Thread n reads the file PARTS.n, with lines `INSTANCE_ID SIGNATURE BODY`: snapshots. In place of the first space, `r` is
-- an unsigned registration and `a` an activation. With PAUSE_MS above zero each connection pauses before each request,
-- exponentially distributed with that mean. The last line of the output is the result as JSON.

local threads = {}

local INSTANCE_ID_ENDS, SIGNATURE_ENDS = 36, 36 + 1 + 128
local PATHS = {[" "] = "/v1/snapshot", r = "/v1/register", a = "/v1/activate"}

function setup(thread)
  thread:set("number", #threads)
  table.insert(threads, thread)
end

function init(arguments)
  part = assert(io.open(arguments[1] .. "." .. number, "r"))
  local pause_ms = tonumber(arguments[2])
  if pause_ms > 0 then
    math.randomseed(number + 1)
    -- wrk waits whole milliseconds; rounding up or down at random keeps the mean
    function delay() return math.floor(-pause_ms * math.log(1 - math.random()) + math.random()) end
  end
  start = " HTTP/1.1\r\nHost: " .. wrk.host .. ":" .. wrk.port
    .. "\r\nUser-Agent: Go-http-client/1.1\r\nContent-Type: application/json\r\nAccept-Encoding: gzip\r\nContent-Length: "
  -- wrk requests one from thread 0 without sending it
  sent, exhausted, statuses = number == 0 and -1 or 0, 0, {}
end

function request()
  local line = part:read("*l")
  if not line then
    exhausted = 1
    return ""
  end
  sent = sent + 1
  local kind, signature = line:sub(INSTANCE_ID_ENDS + 1, INSTANCE_ID_ENDS + 1), ""
  if kind ~= "r" then
    signature = "\r\nX-Instance-Id: " .. line:sub(1, INSTANCE_ID_ENDS)
      .. "\r\nX-Signature: " .. line:sub(INSTANCE_ID_ENDS + 2, SIGNATURE_ENDS)
  end
  return "POST " .. PATHS[kind] .. start .. (#line - SIGNATURE_ENDS - 1)
    .. signature .. "\r\n\r\n" .. line:sub(SIGNATURE_ENDS + 2)
end

function response(status)
  local key = tostring(status)
  statuses[key] = (statuses[key] or 0) + 1
end

function done(summary, latency)
  local sent, exhausted, statuses = 0, 0, {}
  for _, thread in ipairs(threads) do
    sent, exhausted = sent + thread:get("sent"), exhausted + thread:get("exhausted")
    for status, count in pairs(thread:get("statuses")) do statuses[status] = (statuses[status] or 0) + count end
  end
  local counted = {}
  for status, count in pairs(statuses) do table.insert(counted, string.format('"%s":%d', status, count)) end
  local errors = summary.errors
  print(string.format(
    '{"seconds":%.6f,"sent":%d,"exhausted":%d,"failures":%d,"p50_ms":%.3f,"p99_ms":%.3f,"statuses":{%s}}',
    summary.duration / 1e6, sent, exhausted, errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, table.concat(counted, ",")))
end
