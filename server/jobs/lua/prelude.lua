-- Joined in front of every script, behind the names of keys.py. ARGV[1] is a JSON object, the named arguments; behind it
-- come bytes. KEYS[1..6] of a script about one job are those of `key`. Times are Redis' own, in milliseconds.
local args = cjson.decode(ARGV[1])
local key = {job = KEYS[1], events = KEYS[2], queue = KEYS[3], tombstone = KEYS[4], previews = KEYS[5], due = KEYS[6]}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function field(name)
  return redis.call('HGET', key.job, name) or ''
end

local function number(name)
  return tonumber(field(name)) or 0
end

-- Readers are notified of the log by one short stream for all jobs; a script does it once.
local is_notified = false
local function notify()
  if not is_notified then
    redis.call('XADD', ACTIVITY, 'MAXLEN', '~', ACTIVITY_LENGTH, '*', 'job', string.sub(key.job, #job_key('') + 1))
    is_notified = true
  end
end

local function append(kind, body)
  local seq = redis.call('HINCRBY', key.job, 'seq', 1)
  redis.call('XADD', key.events, seq .. '-0', 'type', kind, 'at', now, 'body', body)
  notify()
  return seq
end

-- A preview takes the place of the one before of the same image. They have a stream of their own: a stream frees its
-- memory by whole nodes, so previews that were deleted between patches would stay.
local function append_preview(image, body)
  local seq = redis.call('HINCRBY', key.job, 'seq', 1)
  local before = field('preview' .. image)
  if before ~= '' then
    redis.call('XDEL', key.previews, before .. '-0')
  end
  redis.call('XADD', key.previews, seq .. '-0', 'type', 'preview', 'at', now, 'body', body)
  redis.call('HSET', key.job, 'preview' .. image, seq)
  notify()
end

local function leave_queue(entry)
  redis.call('XACK', key.queue, GROUP, entry)
  redis.call('XDEL', key.queue, entry)
end

local function is_terminal(state)
  return state == 'completed' or state == 'failed' or state == 'canceled'
end

-- Whether the worker's claim holds: the fence of its writes.
local function is_mine()
  return field('state') == 'running' and field('owner') == args.worker and number('epoch') == args.epoch
end

local function is_late()
  local deadline = number('deadline')
  return deadline > 0 and now >= deadline
end

-- What the job's worker has to do: 0 go on, 1 cancel, 2 the deadline has passed.
local function order()
  if field('cancel') == '1' then
    return 1
  end
  return is_late() and 2 or 0
end
