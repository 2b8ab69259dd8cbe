-- KEYS: job, queue. ARGV: group. Returns {jobs waiting ahead or -1 when it does not wait, row-steps of all jobs ahead}.
local entry = redis.call('HGET', KEYS[1], 'entry')
if not entry then
  return {-1, 0}
end
local delivered = '0-0'
if redis.call('EXISTS', KEYS[2]) == 1 then
  for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[2])) do
    local facts = {}
    for i = 1, #group, 2 do
      facts[group[i]] = group[i + 1]
    end
    if facts['name'] == ARGV[1] then
      delivered = facts['last-delivered-id']
    end
  end
end
local function parts(id)
  local ms, seq = string.match(id, '(%d+)-(%d+)')
  return tonumber(ms), tonumber(seq)
end
local function is_later(a, b)
  local a_ms, a_seq = parts(a)
  local b_ms, b_seq = parts(b)
  return a_ms > b_ms or (a_ms == b_ms and a_seq > b_seq)
end
local waiting, work = 0, 0
for _, item in ipairs(redis.call('XRANGE', KEYS[2], '-', '(' .. entry)) do
  if is_later(item[1], delivered) then
    waiting = waiting + 1
  end
  work = work + tonumber(redis.call('HGET', 'job:' .. item[2][2], 'work') or 0)
end
if redis.call('HGET', KEYS[1], 'state') ~= 'queued' then
  waiting = -1
end
return {waiting, work}
